"""What the triggers of a domain are decided from: what waits, what they remember, what was trained, what was said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from genome import batches, files
from genome.batches import Batch
from genome.feedback import Sample
from genome.layout import Home
from genome.pending import Pending
from genome.records import Record
from genome.trigger_settings import Triggers


class TriggerMemory(Record):
    """triggers.json: what the triggers of a domain looked at, and nothing that can be read elsewhere.

    Whether a scheduled run or a drop was answered is read from the batches: one that was formed since is the answer.
    So a crash between forming a batch and writing here trains nothing twice.
    """

    schedule: str = ""
    """The expression and time zone ``looked_at`` belongs to: with others the schedule begins anew."""
    looked_at: int | None = None
    """Scheduled runs up to this time are done with: trained, found nothing, or skipped. Milliseconds since 1970."""
    dropped: int | None = None
    """When the metric last dropped, in milliseconds since 1970."""
    metric: str = ""
    """Which one that was: of another one nothing is known."""
    recovered: bool = True
    """Whether the metric rose again since: only then can it drop again."""


@dataclass(frozen=True)
class Facts:
    pending: Pending
    memory: TriggerMemory = field(default_factory=TriggerMemory)
    samples: Sequence[Sample] = ()
    """Of the metric that quality-drop looks at, oldest first; at least those of its window."""
    formed: float | None = None
    """When the domain's newest batch was formed, in seconds since 1970."""
    refused: float | None = None
    """When a batch of it was last set aside."""
    wanted: int = 0
    """Examples that must wait before anything starts: with fewer the gate could not tell, the last time."""
    watched_since: float = -math.inf
    """Since when somebody has been looking. A scheduled run before it was missed."""


Samples = Callable[[str, str, str, float], Sequence[Sample]]
"""(persona, domain, metric, since) → what was said since then, oldest first."""


def no_samples(_persona: str, _domain: str, _metric: str, _since: float) -> Sequence[Sample]:
    """Where nobody says anything about replies."""
    return ()


def gather(home: Home, triggers: Triggers, pending: Pending, samples: Samples, now: float) -> Facts:
    """What is known of the domain whose signals ``pending`` counts, as far as these triggers ask."""
    persona, domain, drop = pending.persona, pending.domain, triggers.quality_drop
    said = samples(persona, domain, drop.metric, now - drop.window_hours * 3600) if drop else ()
    asks_formed = triggers.scheduled is not None or drop is not None
    with files.locked(home.lock):  # batches move
        return Facts(
            pending=pending,
            memory=remembered(home, persona, domain),
            samples=said,
            formed=formed(home, persona, domain) if asks_formed else None,
            refused=refused(home, persona, domain) if triggers.refusal_cooldown_hours else None,
        )


def remembered(home: Home, persona: str, domain: str) -> TriggerMemory:
    """Empty where there is none yet. Raises Damaged, once, for one that cannot be read."""
    with suppress(FileNotFoundError):
        return TriggerMemory.read(home.triggers(persona, domain))
    return TriggerMemory()


def remember(home: Home, persona: str, domain: str, memory: TriggerMemory) -> None:
    with files.locked(home.lock):
        memory.write(home.triggers(persona, domain))


def formed(home: Home, persona: str, domain: str) -> float | None:
    """When the newest batch was formed, wherever it lies by now."""
    places = (home.queued(persona, domain), home.archive(persona, domain), home.set_aside(persona, domain))
    found = (path for place in places for path in place.glob("batch-*/batch.json"))
    newest = max(found, key=lambda path: batches.order(path.parent.name), default=None)
    return None if newest is None else Batch.read(newest).created / 1000


def refused(home: Home, persona: str, domain: str) -> float | None:
    """When a batch was last set aside: its reason was written then."""
    reasons = home.set_aside(persona, domain).glob("batch-*/reason.txt")
    return max((path.stat().st_mtime for path in reasons), default=None)

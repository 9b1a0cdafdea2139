"""Batches: which sealed segments are trained together, and which of their signals are held out to judge by.

    queued/<batch>/batch.json        waits, trains or is judged; its segments still lie in pending/
    archive/<batch>/                 promoted: batch.json and the segments
    set-aside/<batch>/               refused: likewise, with reason.txt

The rename of the batch's directory is the act; the segments follow it, and `settle` moves what a crash left behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from genome import files, segments
from genome.errors import NotFound
from genome.layout import Home
from genome.records import Record
from genome.signals import Signal


class Batch(Record):
    """batch.json. A segment it names is sealed and no longer pending."""

    id: str
    persona: str
    domain: str
    segments: tuple[str, ...]
    """File names, oldest first."""
    held_out: tuple[str, ...]
    """Ids of the signals kept from training. No question stands on both sides."""
    signals: int
    """That teach; evidence is not counted."""
    digest: str
    """sha256 over the ids of all its signals."""
    reason: str
    """Why it was formed: the trigger's words."""
    created: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class HeldOutPolicy:
    fraction: float
    """At most this part of the questions …"""
    examples: int
    """… and at most so many of them."""
    at_least: int = 0
    """With fewer to judge by, no batch is formed: its signals wait for company."""


def form(home: Home, persona: str, domain: str, reason: str, now: float, policy: HeldOutPolicy) -> Batch | None:
    """Seals what is pending into a queued batch; None if too few there teach. Call under the home's lock."""
    names = tuple(pending_segments(home, persona, domain))
    signals = list(segments.read_all(home.pending(persona, domain) / name for name in names))
    teaching = [signal for signal in signals if signal.teaches]
    held_out = hold_out(teaching, policy)
    if not teaching or len(held_out) < policy.at_least:
        return None
    ids = hashlib.sha256("\n".join(signal.id for signal in signals).encode()).hexdigest()
    batch = Batch(
        id=_next_id(home, now),
        persona=persona,
        domain=domain,
        segments=names,
        held_out=tuple(sorted(held_out)),
        signals=len(teaching),
        digest=ids,
        reason=reason,
        created=int(now * 1000),
    )
    with files.new_directory(home.queued(persona, domain) / batch.id) as aside:
        files.put(aside / "batch.json", batch.to_bytes())
    return batch


def hold_out(signals: Iterable[Signal], policy: HeldOutPolicy) -> set[str]:
    """Ids of the signals to judge by: whole questions, chosen by their hash, so that it is the same at every look."""
    by_question: dict[str, list[Signal]] = {}
    for signal in signals:
        by_question.setdefault(signal.question, []).append(signal)
    ranked = sorted(by_question, key=lambda question: hashlib.sha256(question.encode()).digest())
    chosen = ranked[: min(policy.examples, int(len(ranked) * policy.fraction))]
    return {signal.id for question in chosen for signal in by_question[question]}


def queued(home: Home, persona: str, domain: str) -> list[Batch]:
    return _read_all(home.queued(persona, domain))


def archived(home: Home, persona: str, domain: str) -> list[Batch]:
    return _read_all(home.archive(persona, domain))


def set_aside_batches(home: Home, persona: str, domain: str) -> list[Batch]:
    return _read_all(home.set_aside(persona, domain))


def all_queued(home: Home) -> list[Batch]:
    """Of every persona and domain, oldest first."""
    found = [batch for persona, domain in home.domains() for batch in queued(home, persona, domain)]
    return sorted(found, key=lambda batch: batch.id)


def pending_segments(home: Home, persona: str, domain: str) -> list[str]:
    """Names of segments no batch has taken, oldest first."""
    directory = home.pending(persona, domain)
    present = sorted(path.name for path in directory.glob("*.jsonl")) if directory.is_dir() else []
    sealed = sealed_segments(home, persona, domain)
    return [name for name in present if name not in sealed]


def sealed_segments(home: Home, persona: str, domain: str) -> set[str]:
    """Names a batch has taken: one that is queued, or one that ended, which its segments may not have followed yet."""
    taken = {name for batch in queued(home, persona, domain) for name in batch.segments}
    for place in (home.archive(persona, domain), home.set_aside(persona, domain)):
        taken.update(*(_segments_of(path) for path in place.glob("batch-*/batch.json")))
    return taken


def segment_names(home: Home, persona: str, domain: str, day: str) -> set[str]:
    """Every segment of that day, wherever it lies now: a name is never given twice."""
    ended = (home.archive(persona, domain), home.set_aside(persona, domain))
    places = [home.pending(persona, domain), *(batch for place in ended for batch in place.glob("batch-*"))]
    return {path.name for place in places for path in place.glob(f"{day}-*.jsonl")}


def signals(home: Home, batch: Batch) -> Iterator[Signal]:
    """Every signal of a batch, evidence included, in the order of arrival."""
    for name in batch.segments:
        yield from segments.read(_segment(home, batch, name))


def training_part(home: Home, batch: Batch) -> list[Signal]:
    held_out = set(batch.held_out)
    return [signal for signal in signals(home, batch) if signal.teaches and signal.id not in held_out]


def held_out_part(home: Home, batch: Batch) -> list[Signal]:
    held_out = set(batch.held_out)
    return [signal for signal in signals(home, batch) if signal.id in held_out]


def replay_part(home: Home, batch: Batch, count: int) -> list[Signal]:
    """Up to ``count`` signals that earlier batches of this domain taught, so that they are not forgotten.

    Chosen by a hash with this batch's id: another sample each time, the same at every look.
    """
    if count == 0:
        return []
    held_out = {signal.question for signal in held_out_part(home, batch)}
    earlier = [
        signal
        for old in archived(home, batch.persona, batch.domain)
        for signal in training_part(home, old)
        if signal.question not in held_out
    ]
    return sorted(earlier, key=lambda signal: hashlib.sha256(f"{batch.id} {signal.id}".encode()).digest())[:count]


def archive(home: Home, batch: Batch) -> None:
    """The batch was promoted. Doing it again changes nothing."""
    _move(home, batch, home.archive(batch.persona, batch.domain))


def set_aside(home: Home, batch: Batch, reason: str) -> None:
    """The batch was refused or could not be trained. Its signals stay, out of the way. Again changes nothing."""
    source = home.queued(batch.persona, batch.domain) / batch.id
    if source.exists():
        files.write(source / "reason.txt", f"{reason}\n".encode())
    _move(home, batch, home.set_aside(batch.persona, batch.domain))


def settle(home: Home) -> None:
    """After a crash: lets segments follow the batches that own them."""
    for persona, domain in home.domains():
        for place in (home.archive(persona, domain), home.set_aside(persona, domain)):
            for batch in _read_all(place):
                _move(home, batch, place)


def find(home: Home, batch_id: str) -> Batch:
    """A batch by its id, wherever it lies."""
    for persona, domain in home.domains():
        for place in (home.queued, home.archive, home.set_aside):
            path = place(persona, domain) / batch_id / "batch.json"
            if path.exists():
                return Batch.read(path)
    raise NotFound(f"there is no batch {batch_id!r}", "genome buffer status lists them")


def _move(home: Home, batch: Batch, place: Path) -> None:
    source = home.queued(batch.persona, batch.domain) / batch.id
    if source.exists():
        files.move(source, place / batch.id)
    pending = home.pending(batch.persona, batch.domain)
    for name in batch.segments:
        if (pending / name).exists():
            files.move(pending / name, place / batch.id / name)


def _segment(home: Home, batch: Batch, name: str) -> Path:
    for place in (home.archive, home.set_aside):
        path = place(batch.persona, batch.domain) / batch.id / name
        if path.exists():
            return path
    return home.pending(batch.persona, batch.domain) / name


@cache
def _segments_of(path: Path) -> tuple[str, ...]:
    """Of an ended batch, which never changes any more."""
    return Batch.read(path).segments


def _read_all(place: Path) -> list[Batch]:
    if not place.is_dir():
        return []
    return [Batch.read(path) for path in sorted(place.glob("batch-*/batch.json"))]


def _next_id(home: Home, now: float) -> str:
    """batch-2026-11-20-001: the day, and a number that no batch or job of any persona had that day."""
    day = f"batch-{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
    batches = [
        path
        for persona, domain in home.domains()
        for place in (home.queued, home.archive, home.set_aside)
        for path in place(persona, domain).glob(f"{day}-*")
    ]
    ordered = [path for place in (home.active_jobs, home.completed_jobs) for path in place.glob(f"job{day[5:]}-*")]
    taken = [int(path.name.rpartition("-")[2]) for path in (*batches, *ordered)]
    return f"{day}-{max(taken, default=0) + 1:03d}"

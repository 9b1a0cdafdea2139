"""When to train: pure functions of what waits, of the config and of ``now``.

Each trigger is a function from its settings and the facts to a `Decision`. The first that is due wins and says why;
if none is, the earliest ``look_again`` tells the planner how long it may sleep.
"""

from __future__ import annotations

from dataclasses import dataclass

from genome.config import Threshold, Triggers
from genome.pending import Pending


@dataclass(frozen=True)
class Decision:
    due: bool
    reason: str
    """Why it is due, or what is missing."""
    look_again: float | None = None
    """Seconds since 1970 at which time alone makes it due; None: only new signals can."""


def threshold(settings: Threshold, pending: Pending, now: float) -> Decision:
    """Due with ``min_examples`` waiting, or when the oldest has waited ``max_wait_hours``."""
    if pending.examples >= settings.min_examples:
        return Decision(True, f"threshold: {pending.examples} examples wait, {settings.min_examples} are enough")
    if pending.oldest is None:
        return Decision(False, f"threshold: 0 of {settings.min_examples} examples wait")
    due_at = pending.oldest + settings.max_wait_hours * 3600
    if now >= due_at:
        return Decision(True, f"threshold: the oldest of {pending.examples} waits {settings.max_wait_hours:g} hours")
    return Decision(False, f"threshold: {pending.examples} of {settings.min_examples} examples wait", due_at)


def decide(triggers: Triggers, pending: Pending, now: float) -> Decision:
    """The first trigger that is due, else what is missing and when to look again."""
    decisions = [threshold(triggers.threshold, pending, now)] if triggers.threshold else []
    for decision in decisions:
        if decision.due:
            return decision
    looks = [decision.look_again for decision in decisions if decision.look_again is not None]
    reasons = "; ".join(decision.reason for decision in decisions) or "no trigger is set"
    return Decision(False, reasons, min(looks, default=None))

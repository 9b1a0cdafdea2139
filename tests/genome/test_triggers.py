"""When to train, with the time passed in."""

from __future__ import annotations

from genome.config import Threshold, Triggers
from genome.pending import Pending
from genome.triggers import decide

NOW = 1_000_000.0
TRIGGERS = Triggers(threshold=Threshold(min_examples=5, max_wait_hours=10))


def pending(examples: int, waited_hours: float = 0.0) -> Pending:
    return Pending("p", "d", examples, float(examples), 0, NOW - waited_hours * 3600 if examples else None)


def test_enough_examples_are_due_at_once() -> None:
    """And it says why."""
    decision = decide(TRIGGERS, pending(5), NOW)
    assert decision.due and "5 examples wait" in decision.reason


def test_too_few_wait_until_the_oldest_has_waited_long_enough() -> None:
    """The planner is told when to look again, and then it is due."""
    decision = decide(TRIGGERS, pending(2, waited_hours=4), NOW)
    assert not decision.due and decision.look_again == NOW + 6 * 3600
    assert decide(TRIGGERS, pending(2, waited_hours=4), NOW + 6 * 3600).due


def test_nothing_is_never_due() -> None:
    """Time alone does not train an empty buffer."""
    decision = decide(TRIGGERS, pending(0), NOW)
    assert not decision.due and decision.look_again is None


def test_without_triggers_only_a_person_trains() -> None:
    """No trigger set: never due by itself, and it says so."""
    assert decide(Triggers(threshold=None), pending(999), NOW).reason == "no trigger is set"

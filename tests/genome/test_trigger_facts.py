"""What triggers are decided from, as it lies on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from fixed import NOW

from genome import batches, fsck, trigger_facts
from genome.buffer import Buffer
from genome.config import Intake
from genome.errors import Damaged
from genome.feedback import Sample
from genome.layout import Home
from genome.lines import from_signal
from genome.pending import Pending
from genome.trigger_facts import TriggerMemory
from genome.trigger_settings import Triggers

EVERYTHING = Triggers.model_validate({"scheduled": {}, "quality_drop": {"metric": "speed", "window_hours": 2},
                                      "refusal_cooldown_hours": 1})  # fmt: skip


def formed(home: Home, signal: Callable[..., Any], number: int, now: float) -> batches.Batch:
    Buffer(home, Intake()).accept([from_signal(signal(10 * number + i)) for i in range(10)], now)
    batch = batches.form(home, "helper", "git", "test", now, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    return batch


def test_what_was_trained_is_read_from_the_batches(home: Home, signal: Callable[..., Any]) -> None:
    """The newest batch counts, wherever it lies, and the last that was set aside."""
    pending = Pending("helper", "git")
    nothing = trigger_facts.gather(home, EVERYTHING, pending, trigger_facts.no_samples, NOW)
    assert (nothing.formed, nothing.refused, nothing.memory) == (None, None, TriggerMemory())
    first, second, third = (formed(home, signal, number, NOW + number) for number in range(3))
    batches.archive(home, first)
    batches.set_aside(home, third, "worse")
    os.utime(home.set_aside("helper", "git") / third.id / "reason.txt", (NOW + 60, NOW + 60))
    found = trigger_facts.gather(home, EVERYTHING, pending, trigger_facts.no_samples, NOW)
    assert (found.formed, found.refused) == (NOW + 2, NOW + 60) and second.created == (NOW + 1) * 1000


def test_only_what_the_triggers_ask_for_is_looked_up(home: Home, signal: Callable[..., Any]) -> None:
    """The defaults read no batch and ask for no sample; a window is asked for from its beginning."""
    batches.set_aside(home, formed(home, signal, 0, NOW), "worse")

    def refuses(*_of: Any) -> list[Sample]:
        raise AssertionError("nobody asked")

    found = trigger_facts.gather(home, Triggers(), Pending("helper", "git"), refuses, NOW)
    assert (found.formed, found.refused, found.samples) == (None, None, ())
    asked: list[Any] = []
    trigger_facts.gather(home, EVERYTHING, Pending("helper", "git"), lambda *of: asked.append(of) or [], NOW)
    assert asked == [("helper", "git", "speed", NOW - 7200)]


def test_a_memory_that_cannot_be_read_is_moved_aside(home: Home) -> None:
    """Once, with its reason; then the triggers begin anew. fsck finds it before that, and removes it when asked to."""
    memory = TriggerMemory(schedule="@daily", looked_at=1, dropped=2, recovered=False)
    home.pending("helper", "git").mkdir(parents=True)
    trigger_facts.remember(home, "helper", "git", memory)
    assert trigger_facts.remembered(home, "helper", "git") == memory
    path = home.triggers("helper", "git")
    path.write_bytes(b"{")
    (problem,) = fsck.check(home).problems
    assert problem.path == path and "cannot be read as triggermemory" in problem.what and problem.repairable
    with pytest.raises(Damaged, match="moved"):
        trigger_facts.remembered(home, "helper", "git")
    assert trigger_facts.remembered(home, "helper", "git") == TriggerMemory()
    for aside in path.parent.glob("triggers.json.*"):
        aside.unlink()
    path.write_bytes(b"{")
    assert fsck.check(home, repair=True).problems == () and not path.exists()

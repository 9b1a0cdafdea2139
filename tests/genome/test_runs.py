"""What is told of a job's run, from its events alone."""

from __future__ import annotations

from typing import Any

from genome import runs
from genome.training import Event


def said(event: Any, time: float, **facts: Any) -> Event:
    return Event(event=event, time=time, **facts)


def test_every_step_is_on_the_loss_curve_once() -> None:
    """The steps between two events too; what was made again after a crash counts as it was the last time."""
    events = [
        said("progress", 0, step=1, loss=3.0, losses=[3.0]),
        said("progress", 1, step=4, loss=2.0, losses=[2.8, 2.4, 2.0]),
        said("checkpoint", 1, step=2),
        said("started", 2),
        said("progress", 2, step=2),
        said("progress", 3, step=3, loss=2.3, losses=[2.3]),
    ]
    assert runs.loss_curve(events) == {1: 3.0, 2: 2.8, 3: 2.3, 4: 2.0}


def test_a_trainer_that_tells_only_the_last_loss_has_a_curve_too() -> None:
    """Other people's trainers may say no more."""
    assert runs.loss_curve([said("progress", 0, step=5, loss=2.0), said("finished", 1, step=9)]) == {5: 2.0}


def test_the_metrics_are_the_newest_word_on_each_fact() -> None:
    """Memory is the highest of all processes, seconds are added over them, and what nobody said is not there."""
    events = [
        said("started", 100.0),
        said("progress", 104.0, step=4, loss=2.0, tokens_per_second=50.0, memory_mb=900.0),
        said("progress", 104.0, step=4, validation_loss=2.5, best_validation_loss=2.5, best_step=4),
        said("stopped", 105.0),
        said("started", 200.0),
        said("progress", 203.0, step=8, loss=1.0, tokens_per_second=70.0, memory_mb=800.0),
        said("progress", 203.0, step=8, validation_loss=2.6, best_validation_loss=2.5, best_step=4),
        said("finished", 204.0, step=8, memory_mb=850.0),
    ]
    assert runs.metrics(events) == {
        "last_loss": 1.0, "validation_loss": 2.5, "steps": 8, "best_step": 4, "tokens_per_second": 70.0,
        "train_seconds": 9.0, "memory_mb": 900.0,
    }  # fmt: skip
    assert runs.metrics([]) == {"train_seconds": 0}
    assert runs.validation_curve(events) == {4: 2.5, 8: 2.6}

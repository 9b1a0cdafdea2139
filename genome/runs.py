"""A job's run, read from its events: the loss curve, how its processes began and ended, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from genome.jobs import JobDirectory
from genome.training import Event

COUNTS = ("signals", "anchors", "pairs", "validation", "cut", "left_out")
"""What a trainer says of its examples before its first step; docs/trainers.md has their meaning."""


def loss_curve(events: Iterable[Event]) -> dict[int, float]:
    """The loss of each step, in nats, by the step's number from 1. A step made again after a crash counts once."""
    curve: dict[int, float] = {}
    for event in events:
        if event.step is not None and (losses := event.losses or ([] if event.loss is None else [event.loss])):
            curve |= dict(zip(range(event.step - len(losses) + 1, event.step + 1), losses, strict=True))
    return dict(sorted(curve.items()))


def validation_curve(events: Iterable[Event]) -> dict[int, float]:
    """The validation loss, in nats a token, by the number of steps that had been made."""
    found = {e.step: e.validation_loss for e in events if e.step is not None and e.validation_loss is not None}
    return dict(sorted(found.items()))


def newest(events: Iterable[Event], fact: str) -> Any:
    """What was last said of a fact; None if nothing was."""
    said = (getattr(event, fact) for event in reversed(list(events)))
    return next((value for value in said if value is not None), None)


def metrics(events: list[Event]) -> dict[str, float]:
    """What an adapter's manifest keeps of its training: what is not known is left out.

    ``tokens_per_second`` is of the last process, ``memory_mb`` the highest of all, in MiB.
    """
    found = {
        "last_loss": newest(events, "loss"),
        "validation_loss": newest(events, "best_validation_loss"),
        "steps": newest(events, "step"),
        "best_step": newest(events, "best_step"),
        "tokens_per_second": newest(events, "tokens_per_second"),
        "train_seconds": round(train_seconds(events), 1),
        "memory_mb": max((event.memory_mb for event in events if event.memory_mb is not None), default=None),
    }
    return {name: value for name, value in found.items() if value is not None}


def train_seconds(events: list[Event]) -> float:
    """Time between each start and the last word of that process, added up."""
    return sum(process[-1].time - process[0].time for process in _processes(events))


def described(directory: JobDirectory) -> dict[str, Any]:
    """What `genome training show` says of one job."""
    job, result, events = directory.job(), directory.result(), directory.events()
    verdict = json.loads(directory.verdict_file.read_bytes()) if directory.verdict_file.exists() else None
    first = next((event for event in events if event.model_extra and "signals" in event.model_extra), None)
    return {
        **job.model_dump(include={"persona", "domain", "batch", "attempt", "trainer", "base", "parent"}),
        "job": job.id,
        "state": directory.state(),
        "settings": job.settings.model_dump(),
        "counts": {name: (first.model_extra or {}).get(name) for name in COUNTS} if first else {},
        "processes": [_process(each) for each in _processes(events)],
        "of": newest(events, "steps"),
        "metrics": metrics(events),
        "losses": loss_curve(events),
        "validation_losses": validation_curve(events),
        "adapter": result.adapter if result else None,
        "reason": result.reason if result else None,
        "verdict": {name: verdict.get(name) for name in ("promote", "reason")} if verdict else None,
        "path": str(directory.path),
    }


def _processes(events: Iterable[Event]) -> list[list[Event]]:
    """The events of each trainer process, beginning with its start."""
    found: list[list[Event]] = []
    for event in events:
        if event.event == "started":
            found.append([event])
        elif found and event.event != "waiting":  # for memory, between two of them
            found[-1].append(event)
    return found


def _process(events: list[Event]) -> dict[str, Any]:
    ends = {event.event: event for event in events if event.event in ("stopped", "finished", "failed")}
    ended = next(iter(reversed(ends.values())), None)
    return {
        "started": events[0].time,
        "last_word": events[-1].time,
        "ended": ended.event if ended else None,
        "reason": ended.reason if ended else None,
        "step": newest(events, "step"),
    }

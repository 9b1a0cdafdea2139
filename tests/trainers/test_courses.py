"""A run's course, in every trainer that trains here: its learning rates, and what is left of it when it is killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from trainer_runs import Outcome, question, run_trainer, weights, write_job

from daemon.trainers import schedule
from genome.training import Event, Example, TrainingSettings

EVERY, STEPS = 5, 15
"""Steps between checkpoints, and of the run: none is made at its end, so the second is the last."""
SETTINGS = TrainingSettings(
    rank=8,
    alpha=16,
    learning_rate=1e-5,
    warmup_fraction=0.2,
    min_rate_fraction=0.0,
    epochs=STEPS,
    batch_size=16,
    max_tokens=64,
    checkpoint_steps=EVERY,
    anchor_weight=0.1,
    dtype="float32",
)
SHORT = [question("What colour is the door?", "green"), question("Who keeps the key?", "Ada has it")]
CUT = [
    *(question(f"Who came, {number}, " * 60, "nobody") for number in range(9)),
    Example(id="long", prompt="Once upon a time " * 40, response=" there was a fox", anchor=True),
]
LEFT_OUT = [question("What is said?", "Well, " * 120)]
RATES = [schedule.learning_rate(step, STEPS, SETTINGS) for step in range(STEPS)]
"""So low that a step hardly changes the next one's gradient."""


@dataclass(frozen=True)
class Course:
    """A run that nothing disturbed, one that was killed, the names of what that left, and its continuation."""

    whole: Outcome
    killed: Outcome
    left: list[str]
    continued: Outcome


@pytest.fixture(scope="module")
def course(trainer: str, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    directory = tmp_path_factory.mktemp(f"{trainer}-course")
    job = write_job(directory / "job", base_path, [*SHORT, *CUT, *LEFT_OUT], SETTINGS)
    whole = run_trainer(trainer, job, directory / "whole")
    assert whole.status == 0, whole.log
    checkpoints = directory / "parts"
    killed = run_trainer(trainer, job, checkpoints, stop_when=second_checkpoint(), stop_with=signal.SIGKILL)
    left = sorted(path.name for path in checkpoints.glob("step-*"))
    continued = run_trainer(trainer, job, checkpoints)
    assert continued.status == 0, continued.log
    return Course(whole, killed, left, continued)


def second_checkpoint() -> Callable[[Event], bool]:
    said: list[Event] = []

    def reached(event: Event) -> bool:
        said.extend([event] if event.event == "checkpoint" else [])
        return len(said) == 2

    return reached


def test_it_says_how_many_examples_were_cut_and_how_many_left_out(course: Course) -> None:
    """Of the signals and the anchors, with the first thing it says."""
    said = course.whole.events[0].model_dump()
    counts = {name: said[name] for name in ("signals", "anchors", "cut", "left_out")}
    assert counts == {"signals": 11, "anchors": 1, "cut": 10, "left_out": 1}


def test_killed_it_leaves_its_last_checkpoint_alone(course: Course) -> None:
    assert course.killed.status == -signal.SIGKILL
    assert [event.step for event in course.killed.named("checkpoint")] == [EVERY, 2 * EVERY]
    assert course.left == [f"step-{2 * EVERY:08d}"]


def test_killed_and_started_again_it_ends_in_the_same_adapter(course: Course, trainer: str) -> None:
    """It goes on from the checkpoint, not from the beginning."""
    assert course.continued.events[0].step == 2 * EVERY
    whole, parts = weights(course.whole.adapter), weights(course.continued.adapter)
    tolerance = 1e-7 if trainer == "mlx" else 0.0
    assert whole.keys() == parts.keys()
    assert max(float(np.abs(whole[name] - parts[name]).max()) for name in whole) <= tolerance


def test_it_says_the_learning_rate_of_each_step(course: Course) -> None:
    """Also where it goes on: that of the step, not of the first one made again."""
    for outcome, first in ((course.whole, 1), (course.continued, 2 * EVERY + 1)):
        said = {event.step: event.learning_rate for event in outcome.events if event.learning_rate is not None}
        assert {first, STEPS} <= said.keys()
        assert said == pytest.approx({step: RATES[step - 1] for step in said if step})


def test_its_steps_are_as_large_as_the_learning_rate_says(course: Course) -> None:
    """While the gradient stays what it is, Adam moves every weight by the rate, whatever the gradient: B begins at
    zero and ends at the rates' sum, of which the adapter has the average over the last steps."""
    newest = average = 0.0
    for number, rate in enumerate(RATES):
        decay = schedule.average_decay(number, STEPS, SETTINGS)
        assert decay is not None
        newest += rate
        average = decay * average + (1 - decay) * newest
    for outcome in (course.whole, course.continued):
        moved = {name: np.median(np.abs(each)) for name, each in weights(outcome.adapter).items() if name[-2:] == ".B"}
        assert moved == pytest.approx(dict.fromkeys(moved, average), rel=5e-3)

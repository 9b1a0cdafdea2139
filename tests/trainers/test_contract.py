"""What `daemon.trainers.contract` does for every trainer, shown with one that learns nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from trainer_runs import question, write_job

from genome import runs
from genome.training import EXIT_STOPPED, Event, Example, TrainingSettings

SCRIPTED = """
import os, signal, sys
from types import SimpleNamespace
import numpy as np
from daemon.trainers import contract

how, job, checkpoints = sys.argv[1:]

def stop():
    os.kill(os.getpid(), signal.SIGTERM)

class Scripted:
    padded, pass_tokens = False, 1
    measured = 0
    save = restore = export = lambda self, directory: None

    def train(self, course):
        for number, _ in enumerate(course.remaining(), course.done + 1):
            if how == f"stops at step {number}":
                stop()
            if not course.made(contract.Losses(1.0 + number)):
                break

    def log_probabilities(self, batch):
        self.measured += 1
        print("measured", self.measured, file=sys.stderr)
        if how == f"stops at measurement {self.measured}":
            stop()
        return np.full(len(batch.lengths), np.nan if how == "is no number" else -1.0)

sys.modules["scripted"] = SimpleNamespace(load=lambda job: Scripted())
raise SystemExit(contract.run("scripted", [job, checkpoints]))
"""
"""A trainer: argv is what it does, and the two directories. Each pass holds one row."""


@dataclass(frozen=True)
class Said:
    status: int
    events: list[Event]
    measured: int
    """Passes made to measure the validation loss."""

    @property
    def first_step(self) -> int | None:
        return self.events[0].step


@dataclass(frozen=True)
class Given:
    job: Path
    checkpoints: Path

    def run(self, how: str = "") -> Said:
        command = [sys.executable, "-c", SCRIPTED, how, str(self.job), str(self.checkpoints)]
        done = subprocess.run(command, capture_output=True, check=False)
        events = [Event.model_validate_json(line) for line in done.stdout.splitlines()]
        return Said(done.returncode, events, done.stderr.count(b"measured "))


@pytest.fixture
def given(base_path: Path, tmp_path: Path) -> Given:
    """Twelve steps of one signal, measured after every step with three examples."""
    settings = TrainingSettings(epochs=12)
    asides = [question(f"Aside {number}", "well").model_copy(update={"validation": True}) for number in range(3)]
    examples: list[Example] = [question("Hi", "well"), *asides]
    (tmp_path / "made").mkdir()
    return Given(write_job(tmp_path / "job", base_path, examples, settings), tmp_path / "made")


def test_a_checkpoint_of_other_examples_is_not_gone_on_from(given: Given) -> None:
    """As where a signal was retracted meanwhile: what it taught would stay."""
    assert [given.run(f"stops at step {step}").first_step for step in (1, 2)] == [0, 1]
    lines = given.job / "train.jsonl"
    lines.write_text(lines.read_text().replace("well", "good"))
    assert given.run("stops at step 1").first_step == 0


def test_every_step_of_a_run_that_was_stopped_has_its_loss(given: Given) -> None:
    """Progress is told twice a second at most, these steps take none: what was not told comes with the checkpoint."""
    stopped, continued = given.run("stops at step 7"), given.run()
    assert (stopped.status, continued.status) == (EXIT_STOPPED, 0)
    curve = runs.loss_curve([*stopped.events, *continued.events])
    assert curve == {step: 1.0 + step for step in range(1, 13)}


def test_a_run_that_stops_early_has_the_loss_of_every_step_too(given: Given) -> None:
    settings = TrainingSettings(epochs=12, patience=3)
    job = given.job / "job.json"
    job.write_text(job.read_text().replace('"patience": 0', f'"patience": {settings.patience}'))
    ended = given.run()
    assert ended.status == 0
    assert list(runs.loss_curve(ended.events)) == [1, 2, 3, 4]
    assert runs.metrics(ended.events)["last_loss"] == 5.0


@pytest.mark.parametrize("measurement", [2, 35], ids=["the first", "the last"])
def test_told_to_stop_while_it_measures_it_does_and_measures_anew(given: Given, measurement: int) -> None:
    """A measurement may take longer than the daemon waits; the run goes on from the step before it and is the same."""
    stopped = given.run(f"stops at measurement {measurement}")
    assert (stopped.status, stopped.measured) == (EXIT_STOPPED, measurement)
    assert stopped.events[-1].step == -(-measurement // 3)
    continued = given.run()
    assert continued.status == 0
    assert stopped.measured // 3 * 3 + continued.measured == 36
    curve = runs.validation_curve([*stopped.events, *continued.events])
    assert list(curve) == list(range(1, 13))


def test_a_validation_loss_that_is_no_number_says_what_to_try(given: Given) -> None:
    ended = given.run("is no number")
    assert ended.status == 1
    assert ended.events[-1].reason is not None
    assert "validation loss is not finite after step 1" in ended.events[-1].reason
    assert "training.learning_rate" in ended.events[-1].reason

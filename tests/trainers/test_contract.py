"""What `daemon.trainers.contract` does for every trainer, shown with one that learns nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainer_runs import question, write_job

from genome.training import EXIT_STOPPED, Event, TrainingSettings

COUNTING = """
import os, signal, sys
from types import SimpleNamespace
from daemon.trainers import contract

class Counting:
    padded, pass_tokens = False, 100
    save = restore = lambda self, directory: None

    def train(self, course):
        os.kill(os.getpid(), signal.SIGTERM)  # after its first step it is to stop
        course.made(contract.Losses(1.0))

sys.modules["counting"] = SimpleNamespace(load=lambda job: Counting())
raise SystemExit(contract.run("counting", sys.argv[1:]))
"""


def first_step(job: Path, checkpoints: Path) -> int | None:
    """Of a run that stops after one."""
    command = [sys.executable, "-c", COUNTING, str(job), str(checkpoints)]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert found.returncode == EXIT_STOPPED
    return Event.model_validate_json(found.stdout.splitlines()[0]).step


def test_a_checkpoint_of_other_examples_is_not_gone_on_from(base_path: Path, tmp_path: Path) -> None:
    """As where a signal was retracted meanwhile: what it taught would stay."""
    settings = TrainingSettings(epochs=9)
    job, checkpoints = write_job(tmp_path / "job", base_path, [question("Hi", "well")], settings), tmp_path / "made"
    assert [first_step(job, checkpoints) for _ in range(2)] == [0, 1]
    lines = job / "train.jsonl"
    lines.write_text(lines.read_text().replace("well", "good"))
    assert first_step(job, checkpoints) == 0

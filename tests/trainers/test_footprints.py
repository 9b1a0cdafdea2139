"""What a training is reckoned to take, beside what its process takes."""

from __future__ import annotations

from pathlib import Path

from fixed import SHIPPED_BASE
from trainer_runs import question, run_trainer, write_job

from daemon import footprints
from genome import memory, shapes
from genome.jobs import JobDirectory
from genome.training import Example, TrainingSettings


def test_a_whole_job_takes_what_was_reckoned(tmp_path: Path) -> None:
    """Also after many passes, each with another number of tokens: nothing is kept of those that are over."""
    signals = [question(f"timer {'7' * (number % 37)} " * 3, "9" * (number % 23 + 5)) for number in range(48)]
    anchors = [
        Example(id=f"anchor {number}", prompt="play " * (number % 13 + 2), response="now " * 5, anchor=True)
        for number in range(40)
    ]
    settings = TrainingSettings(dtype="bfloat16", batch_size=4, epochs=2)
    path = write_job(tmp_path / "job", SHIPPED_BASE, [*signals, *anchors], settings)
    outcome = run_trainer("torch", path, tmp_path / "checkpoints")
    assert outcome.status == 0, outcome.log
    taken = outcome.events[-1].memory_mb
    job = JobDirectory(path).job().model_copy(update={"trainer": "torch"})
    need = memory.need(
        shapes.of(SHIPPED_BASE), settings, memory.work([*signals, *anchors], settings),
        footprints.library(job, gpu=False), (memory.WHOLE_PASS, False),
    )  # fmt: skip
    reckoned = need.split(accelerator=False)[0] / memory.MIB
    assert taken is not None and 0.85 * taken <= reckoned <= 1.7 * taken, (reckoned, taken)

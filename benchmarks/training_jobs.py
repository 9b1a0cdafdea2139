"""Training jobs, written and run as the daemon runs them: a directory in, events out, a process of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from daemon import process
from daemon.trainers import catalog
from daemon.trainers.contract import ADAPTER
from genome.jobs import JobDirectory
from genome.training import Event, Example, Job, TrainingSettings

SCRATCH = "checkpoints"
Trainer = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Run:
    """One trainer process, from its start to its end. ``seconds`` are of the clock, its start included."""

    seconds: float
    events: list[Event]
    adapter: Path

    @property
    def step_seconds(self) -> float:
        """Spent in steps alone."""
        return float((self.events[-1].model_extra or {})["step_seconds"])


def order(base: Path, trainer: str, settings: TrainingSettings, parent: Path | None = None, name: str = "job") -> Job:
    return Job(
        id=name,
        persona="bench",
        domain="training",
        batch="batch",
        trainer=trainer,
        base=str(base),
        base_fingerprint="",
        parent_path=str(parent) if parent else None,
        settings=settings,
        created=0,
    )


def write(directory: Path, job: Job, examples: Iterable[Example]) -> Path:
    directory.mkdir(parents=True)
    (directory / "job.json").write_bytes(job.to_bytes())
    lines = [example.model_dump_json(exclude_defaults=True) + "\n" for example in examples]
    (directory / "train.jsonl").write_text("".join(lines))
    return directory


def run(trainer: str, directory: Path, checkpoints: Path | None = None) -> Run:
    """Runs a job to its end, or raises RuntimeError with what its trainer said."""
    checkpoints = checkpoints or directory / SCRATCH
    checkpoints.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with (directory / "log.txt").open("wb") as log:
        done = _start(trainer, directory, checkpoints, subprocess.PIPE, log)
        said, _ = done.communicate()
    took = time.perf_counter() - started
    events = [Event.model_validate_json(line) for line in said.splitlines()]
    if done.returncode or not events or events[-1].event != "finished":
        reason = next((event.reason for event in reversed(events) if event.reason), f"exit {done.returncode}")
        raise RuntimeError(f"{trainer} failed: {reason}; {(directory / 'log.txt').read_text()[-2000:]}")
    return Run(took, events, checkpoints / ADAPTER)


@contextmanager
def running(trainer: str, directory: Path) -> Iterator[Trainer]:
    """A trainer that has made its first step, ended when the block is left. It must have more to do than that takes."""
    checkpoints, said = directory / SCRATCH, directory / "events.jsonl"
    checkpoints.mkdir()
    with (directory / "log.txt").open("wb") as log, said.open("wb") as out:
        started = _start(trainer, directory, checkpoints, out, log)
    try:
        while b'"loss"' not in said.read_bytes():
            if started.poll() is not None:
                raise RuntimeError(f"{trainer} ended early: {(directory / 'log.txt').read_text()[-2000:]}")
            time.sleep(0.1)
        yield started
    finally:
        started.kill()
        started.wait()


def _start(trainer: str, directory: Path, checkpoints: Path, out: int | IO[bytes], log: IO[bytes]) -> Trainer:
    """With the threads and the priority that the daemon's runner gives it."""
    started = subprocess.Popen(
        catalog.command(trainer, directory, checkpoints), stdout=out, stderr=log, start_new_session=True,
        env=os.environ | catalog.threads(JobDirectory(directory).job().settings.threads),
    )  # fmt: skip
    process.yield_to_serving(started.pid)
    return started


@contextmanager
def two_cores() -> Iterator[None]:
    """Everything that is started in here shares two cores, where the system lets one choose."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(allowed) > 2:
        os.sched_setaffinity(0, sorted(allowed)[:2])
    try:
        yield
    finally:
        if len(allowed) > 2:
            os.sched_setaffinity(0, allowed)

"""Jobs written to disk, and trainers run on them as the daemon runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from daemon.trainers import catalog
from genome.jobs import JobDirectory
from genome.training import Event, Example, Job, TrainingSettings


@dataclass(frozen=True)
class Outcome:
    """What one trainer process said and left."""

    status: int
    events: list[Event]
    checkpoints: Path
    log: str

    @property
    def adapter(self) -> Path:
        return self.checkpoints / "adapter"

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.event == name]

    @property
    def losses(self) -> list[float]:
        return [event.loss for event in self.events if event.loss is not None]


def question(text: str, answer: str, weight: float = 1.0) -> Example:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return Example(id=text, messages=messages, weight=weight)


def write_job(
    directory: Path,
    base: Path,
    examples: Iterable[Example],
    settings: TrainingSettings | None = None,
    parent: Path | None = None,
) -> Path:
    directory.mkdir(parents=True)
    job = Job(
        id=directory.name,
        persona="helper",
        domain="general",
        batch="batch",
        trainer="any",
        base=str(base),
        base_fingerprint="",
        parent_path=str(parent) if parent else None,
        settings=settings or TrainingSettings(),
        created=0,
    )
    (directory / "job.json").write_bytes(job.to_bytes())
    lines = [example.model_dump_json(exclude_defaults=True) + "\n" for example in examples]
    (directory / "train.jsonl").write_text("".join(lines))
    return directory


def run_trainer(
    trainer: str,
    job: Path,
    checkpoints: Path,
    stop_at_first_step: bool = False,
    stop_at: int = 0,
    stop_when: Callable[[Event], bool] | None = None,
) -> Outcome:
    """Runs a trainer to its end; every line it prints must be an event. Can ask it to stop once it has made a step, or
    has said that it made as many as ``stop_at``, or has said something."""
    stop_at = 1 if stop_at_first_step else stop_at
    if stop_at:
        stop_when = lambda event: (event.step or 0) >= stop_at  # noqa: E731
    log = job / "log.txt"
    events = []
    with log.open("ab") as stderr:
        command = catalog.command(trainer, job, checkpoints)
        threads = catalog.threads(JobDirectory(job).job().settings.threads)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, env=os.environ | threads
        )
    assert process.stdout is not None
    for line in process.stdout:
        events.append(Event.model_validate_json(line))
        if stop_when is not None and stop_when(events[-1]):
            stop_when = None
            process.terminate()
    return Outcome(process.wait(), events, checkpoints, log.read_text())

"""Training jobs: what one is asked to do, what it says while it runs, and how it lies on disk.

    active/<job>/job.json       the order, written once
                 train.jsonl    one `Example` a line: the batch's train part, then anchors
                 events.jsonl   what the runner and the trainer said, one `Event` a line
                 log.txt        the trainer's standard error
                 held           while it exists, the job does not run (`genome training prepare`, `stop`)
                 result.json    the candidate's id, or why there is none
                 verdict.json   the gate's judgement of the candidate

The whole directory moves to completed/ when its batch is archived or set aside, or when the training failed for good.
A job's state is read from these files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from genome import files
from genome.errors import Conflict, Damaged, NotFound
from genome.layout import Home
from genome.records import Record
from genome.training import ENDED, Event, Example, Job

State = Literal["held", "waiting", "training", "judging", "promoted", "refused", "failed"]


FACTS = ("loss", "tokens_per_second", "eta_seconds", "memory_mb", "validation_loss")
"""Of a progress event, which others leave out."""


class Result(Record):
    """How a job's training ended, as result.json."""

    adapter: str | None = None
    """Id of the candidate."""
    reason: str | None = None
    """Why there is no candidate."""
    withdrawn: bool = False
    """Whether it was ended from outside, so that its batch is ordered again under another id."""
    train_seconds: float = 0.0
    """Of the trainer processes, start to exit, added over resumptions."""


@dataclass(frozen=True)
class JobDirectory:
    """One job's directory, active or completed."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def examples(self) -> Path:
        return self.path / "train.jsonl"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def held(self) -> Path:
        return self.path / "held"

    @property
    def result_file(self) -> Path:
        return self.path / "result.json"

    @property
    def verdict_file(self) -> Path:
        return self.path / "verdict.json"

    def job(self) -> Job:
        return Job.read(self.path / "job.json")

    def result(self) -> Result | None:
        return Result.read(self.result_file) if self.result_file.exists() else None

    def record(self, event: Event) -> None:
        """Appends one event, durably."""
        files.append(self.events_file, event.model_dump_json(exclude_none=True).encode() + b"\n")

    def events(self) -> list[Event]:
        """What was recorded, oldest first. A line that cannot be read is passed over; `genome fsck` names it."""
        if not self.events_file.exists():
            return []
        found = []
        for line in self.events_file.read_bytes().split(b"\n")[:-1]:
            with suppress(ValidationError):
                found.append(Event.model_validate_json(line))
        return found

    def starts(self) -> int:
        """How often a trainer process was started for this job without being asked to stop. One that says it stopped
        and fails after all was not: the last word counts."""
        counted: list[bool] = []
        for event in self.events():
            if event.event == "started":
                counted.append(True)
            elif event.event in ("stopped", "failed") and counted:
                counted[-1] = event.event == "failed"
        return sum(counted)

    def state(self) -> State:
        result = self.result()
        if result is not None and result.adapter is None:
            return "failed"
        if result is not None:
            if not self.verdict_file.exists():
                return "judging"
            return "promoted" if json.loads(self.verdict_file.read_bytes()).get("promote") else "refused"
        if self.held.exists():
            return "held"
        last = next((event.event for event in reversed(self.events())), None)
        return "training" if last in ("started", "progress", "checkpoint") else "waiting"

    def waits_for(self) -> str | None:
        """Why it does not run although it may; None: nothing but its turn is known."""
        last = next(reversed(self.events()), None)
        return last.reason if last is not None and last.event == "waiting" and self.state() == "waiting" else None

    def progress(self) -> Event | None:
        """The newest event that says how far it is, with what earlier ones said where it is silent."""
        said = [event for event in self.events() if event.step is not None]
        if not said:
            return None
        known = ((name, (getattr(event, name) for event in reversed(said))) for name in FACTS)
        newest = {name: next((value for value in values if value is not None), None) for name, values in known}
        return said[-1].model_copy(update=newest)


def create(home: Home, job: Job, examples: Iterator[Example], held: bool = False) -> JobDirectory:
    """Puts a whole job in place; the rename of its directory is the act that makes it exist."""
    data = b"".join(example.model_dump_json(exclude_defaults=True).encode() + b"\n" for example in examples)
    with files.locked(home.lock):  # a verb may order the job the daemon is ordering
        for there in (home.active_jobs / job.id, home.completed_jobs / job.id):
            if there.exists():
                return JobDirectory(there)
        directory = JobDirectory(home.active_jobs / job.id)
        with files.new_directory(directory.path) as aside:
            files.put(aside / "train.jsonl", data)
            if held:
                files.put(aside / "held", b"")
            files.put(aside / "job.json", job.to_bytes())
    return directory


def active(home: Home) -> list[JobDirectory]:
    """Oldest first."""
    return _list(home.active_jobs)


def busy(home: Home) -> set[tuple[str, str]]:
    """(persona, domain) of every active job. Call under the home's lock."""
    return {(job.persona, job.domain) for job in (directory.job() for directory in active(home))}


def completed(home: Home) -> list[JobDirectory]:
    return _list(home.completed_jobs)


def find(home: Home, job: str) -> JobDirectory:
    for parent in (home.active_jobs, home.completed_jobs):
        if (parent / job / "job.json").exists():
            return JobDirectory(parent / job)
    known = ", ".join(directory.id for directory in active(home) + completed(home)) or "none yet"
    raise NotFound(f"there is no job {job!r}", f"Jobs: {known}")


def hold(home: Home, job: str) -> None:
    """Keeps a job from running; one that runs is stopped at a checkpoint by the runner."""
    with files.locked(home.lock):  # the gate moves what has ended
        directory = find(home, job)
        if directory.path.parent != home.active_jobs or directory.result() is not None:
            raise Conflict(f"{job} has ended its training ({directory.state()})", "There is nothing to stop")
        files.write(directory.held, b"")


def release(home: Home, job: str) -> None:
    """Lets a held job run, from its newest checkpoint if it has one."""
    directory = find(home, job)
    if not directory.held.exists():
        raise Conflict(f"{job} is not held; it is {directory.state()}")
    files.remove(directory.held)


def retry(home: Home, directory: JobDirectory) -> None:
    """Makes a failed job wait again, as if it had never been started; its log and its newest checkpoint stay.

    A finished adapter does not, nor what a trainer wrote of its end: they were the reason to fail.
    """
    moved = JobDirectory(home.active_jobs / directory.id)
    files.move(directory.path, moved.path)
    # The result last: while it is there the job is a failed one, which the runner would only put back.
    checkpoints = home.checkpoints(moved.id)
    for stale in (moved.events_file, checkpoints / "adapter", checkpoints / ENDED, moved.result_file):
        if stale.exists():
            files.remove(stale)


def replace(home: Home, directory: JobDirectory, reason: str) -> str:
    """Withdraws a completed job that failed, so that its batch is ordered again; the id it will have. What it had
    learned goes. Under the home's lock."""
    if home.checkpoints(directory.id).exists():
        files.remove(home.checkpoints(directory.id))
    ended = directory.result() or Result()
    said = f"{reason}; it had failed: {ended.reason}"
    ended.model_copy(update={"reason": said, "withdrawn": True}).write(directory.result_file)
    return next_id(home, directory.job().batch)


def refused(home: Home, batch: str) -> int:
    """How often a candidate of this batch was refused."""
    ended = [directory for directory in completed(home) if of_batch(directory.id) == batch]
    judged = (found for found in ended if not is_probe(found.id) and not _withdrawn(found))
    return sum(found.verdict_file.exists() for found in judged)


def next_id(home: Home, batch: str) -> str:
    """Of the job a batch is to have now: another one after each that was refused or withdrawn."""
    ended = [found for found in completed(home) if of_batch(found.id) == batch and not is_probe(found.id)]
    over = [found for found in ended if found.verdict_file.exists() or _withdrawn(found)]
    return job_id(batch, len(over) + 1)


def _withdrawn(directory: JobDirectory) -> bool:
    result = directory.result()
    return result is not None and result.withdrawn


def job_id(batch: str, attempt: int = 1) -> str:
    """batch-2026-11-20-001 → job-2026-11-20-001, then job-2026-11-20-001.2 for the second attempt."""
    return f"job-{batch.removeprefix('batch-')}" + (f".{attempt}" if attempt > 1 else "")


def probe_id(batch: str, number: int) -> str:
    """batch-2026-11-20-001 → job-2026-11-20-001.p1: the first probe of a search for what breaks the gate."""
    return f"{job_id(batch)}.p{number}"


def probe_number(job: str) -> int:
    """job-2026-11-20-001.p1 → 1"""
    return int(job.rpartition(".p")[2])


def is_probe(job: str) -> bool:
    return ".p" in job


def of_batch(job: str) -> str:
    """The batch a job is of."""
    return f"batch-{job.removeprefix('job-').partition('.')[0]}"


def complete(home: Home, directory: JobDirectory) -> JobDirectory:
    """Moves an ended job out of the active ones."""
    target = home.completed_jobs / directory.id
    files.move(directory.path, target)
    return JobDirectory(target)


def read_examples(path: Path) -> list[Example]:
    """Every example of a train.jsonl."""
    try:
        return [Example.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise Damaged(f"{path} cannot be read: {error}") from error


def _list(parent: Path) -> list[JobDirectory]:
    if not parent.is_dir():
        return []
    made = (path for path in sorted(parent.iterdir()) if not path.name.startswith(files.UNFINISHED))
    return [JobDirectory(path) for path in made if (path / "job.json").exists()]


def summary(directory: JobDirectory) -> dict[str, Any]:
    """What `genome training status` says of one job."""
    job, result, progress = directory.job(), directory.result(), directory.progress()
    return {
        "job": job.id,
        "persona": job.persona,
        "domain": job.domain,
        "batch": job.batch,
        "trainer": job.trainer,
        "state": directory.state(),
        "step": progress.step if progress else 0,
        "steps": progress.steps if progress else None,
        "loss": progress.loss if progress else None,
        "eta_seconds": progress.eta_seconds if progress else None,
        "tokens_per_second": progress.tokens_per_second if progress else None,
        "memory_mb": progress.memory_mb if progress else None,
        "validation_loss": progress.validation_loss if progress else None,
        "adapter": result.adapter if result else None,
        "reason": result.reason if result else directory.waits_for(),
        "path": str(directory.path),
    }

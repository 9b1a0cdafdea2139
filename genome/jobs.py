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
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genome import files
from genome.bases import Described
from genome.errors import Conflict, Damaged, NotFound
from genome.layout import Home
from genome.records import Record

Objective = Literal["sft", "dpo", "sft+dpo"]
"""How a signal with a wrong answer is learned: by cross-entropy of the right one, by preference of the right over the
wrong (DPO, arXiv:2305.18290), or by both. One without a wrong answer is always learned by cross-entropy."""
State = Literal["held", "waiting", "training", "judging", "promoted", "refused", "failed"]


class TrainingSettings(BaseModel):
    """How a LoRA is trained; the same words for every trainer. docs/performance.md has what the defaults rest on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(64, ge=1, le=1024)
    """r of the factors A [r, in] and B [out, r], on every linear layer of the decoder."""
    alpha: float = Field(64.0, gt=0)
    """The update is alpha / rank · B A."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak, reached after the warm-up, then cosine down to zero."""
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    """Of all steps."""
    epochs: float = Field(12.0, gt=0)
    """Passes over the signals."""
    batch_size: int = Field(16, ge=1)
    """Signals a step. Anchors come on top, spread evenly over the steps."""
    max_tokens: int = Field(1024, ge=16)
    """Longest example, in tokens; a longer one loses the beginning of its prompt, never its response."""
    objective: Literal["auto", "sft", "dpo", "sft+dpo"] = "auto"
    """auto: sft+dpo where at least ``min_pairs`` signals say what was wrong, else sft."""
    min_pairs: int = Field(50, ge=1)
    preference_beta: float = Field(0.1, gt=0)
    """DPO's β: how far from the model it began with a preference may lead."""
    preference_weight: float = Field(1.0, ge=0)
    """Weight of the preference, against the signals' cross-entropy."""
    anchor_weight: float = Field(35.0, ge=0)
    """Weight of the anchors' KL divergence to their teacher, against the signals' cross-entropy. Each teacher's, where
    there are two, have the whole of it. 0: no anchors."""
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The base is computed in; the LoRA is float32 always. auto: float32 where
    the base is stored so, else bfloat16 where the hardware computes in it."""
    threads: int = Field(1, ge=1)
    """CPU threads of the trainer. Two on a machine that serves collapse both."""
    checkpoint_steps: int = Field(50, ge=1)
    """Steps between checkpoints; one is also made on SIGTERM."""
    validation_fraction: float = Field(0.0, ge=0, le=0.5)
    """Of a batch's own signals: never trained on, the loss on them says which weights of the run are its best."""
    patience: int = Field(0, ge=0)
    """Measurements of that loss in a row without a better one that end the run. 0: it is never ended by that."""


class Beside(BaseModel):
    """An adapter that serves in the same stack."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str
    path: str
    """Its PEFT directory."""
    scale: float = 1.0


class Job(Record):
    """The order a trainer gets, as job.json."""

    id: str
    persona: str
    domain: str
    batch: str
    attempt: int = 1
    """Above 1: the batch was refused before, and is tried with other settings."""
    part: tuple[str, ...] = ()
    """Ids of the signals that a poison search trains alone; its candidate is judged and never promoted."""
    replaces: str | None = None
    """The domain's version that served when the job was ordered; if another serves by now, it is ordered again."""
    trainer: str
    base: str
    """Directory of the model that is trained on: the base, or a copy of it that training.base names."""
    base_fingerprint: str
    """Of the base the adapter is made for."""
    copy_of: str | None = None
    """The base's directory, where ``base`` is a copy."""
    trained_on: Described | None = None
    """What ``base`` holds."""
    parent: str | None = None
    """Adapter id the training goes on from; None begins anew."""
    parent_path: str | None = None
    """The parent's PEFT directory."""
    beside: tuple[Beside, ...] = ()
    """Adapters of the persona's other domains: applied while this one is trained, as they are when it serves."""
    settings: TrainingSettings
    created: int
    """Milliseconds since 1970."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the adapters it is trained with: the parent, and those beside it."""
        return (*((self.parent,) if self.parent else ()), *(each.adapter for each in self.beside))


class Example(BaseModel):
    """One line of train.jsonl. The last message is the response: loss is taken on it and its end of sequence alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    messages: list[dict[str, str]] = []
    """Chat turns {role, content}; rendered by the base's chat template."""
    prompt: str | None = None
    """Instead of messages: text taken as it is (an anchor sampled from the base), answered by ``response``."""
    response: str | None = None
    weight: float = Field(1.0, gt=0)
    """Multiplies the loss of the example's every response token: the same gradient as that many copies of it."""
    anchor: bool = False
    """An answer of a model, or one that was taught: pulls towards its teacher's distribution (KL), not to the text."""
    teacher: Literal["base", "parent"] = "base"
    """Of an anchor, whose distribution it is held to. base: the bare model's. parent: that of what serves, the job's
    parent and the adapters beside it."""
    rejected: str | None = None
    """The answer that was corrected: the worse of a preference pair whose better is the response."""
    validation: bool = False
    """Never trained on: the loss is measured on it. Not together with ``anchor``."""

    @model_validator(mode="after")
    def _one_part(self) -> Example:
        if self.anchor and self.validation:
            raise ValueError("an example cannot be both anchor and validation")
        return self


class Event(BaseModel):
    """One line a trainer prints, and one line of events.jsonl. Unknown keys are kept: trainers may say more."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)  # JSON has no word for those

    event: Literal["waiting", "started", "progress", "checkpoint", "stopped", "finished", "failed"]
    """waiting: it may run and does not yet, see reason (runner). started: a process began (runner). progress: a step
    was made, or part of what the run is compared with was measured. checkpoint: it can go on from here. stopped: it was
    asked to stop and can go on. finished: the adapter lies in ``checkpoints/<job>/adapter``. failed: see reason; also
    of a process that ended without a word (runner)."""
    time: float = Field(default_factory=time.time)
    """Seconds since 1970."""
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    """Mean cross-entropy of response tokens in nats, weighted, of this step."""
    losses: list[float] | None = None
    """The same of every step since the last event with any; the last is ``loss``."""
    learning_rate: float | None = None
    validation_loss: float | None = None
    """As measured after this step, on the examples that are never trained on."""
    best_validation_loss: float | None = None
    best_step: int | None = None
    """The step after which it was measured; the run ends with the weights it had then."""
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    memory_mb: float | None = None
    """Resident memory of the trainer at its highest."""
    reason: str | None = None


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


ENDED = "ended.json"
"""Name of a file that a trainer leaves in the checkpoint directory where starting it again would be in vain, or be
paid; `retry` removes it."""
EXIT_STOPPED = 75
"""Exit status of a trainer that was told to stop and left a checkpoint to go on from (sysexits' EX_TEMPFAIL)."""


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


def objective(settings: TrainingSettings, examples: Sequence[Example]) -> Objective:
    """What ``settings`` mean for these examples: auto learns from pairs where there are enough of them."""
    if settings.objective != "auto":
        return settings.objective
    pairs = sum(example.rejected is not None and not example.validation for example in examples)
    return "sft+dpo" if pairs >= settings.min_pairs else "sft"


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

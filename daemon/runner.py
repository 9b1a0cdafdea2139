"""The runner loop: a training job in a child process; what it says is recorded, its adapter installed.

There is one loop for each job that may train at the same time; `Claims` keep them apart.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from pydantic import ValidationError

from daemon import process
from daemon.admission import Admission, Granted, Short, TooLarge
from daemon.events import Alarm, Announcer
from daemon.trainers import catalog
from genome import adapters, fairness, files, jobs, lora, retraction, runs
from genome.config import Config
from genome.errors import GenomeError, InvalidAdapter, NotFound
from genome.fairness import Waiting
from genome.jobs import JobDirectory, Result
from genome.layout import Home
from genome.training import Event, Job

LAST_WORDS_BYTES = 2000
MOST_GARBAGE_TOLD = 20
"""Lines of one process that are no events."""
UNTOLD = {"event", "time", "losses", "self"}
"""Of an event's facts; the last is a word that the log has for itself."""
HUNG = -1
"""In place of the exit status of a trainer that was stopped because it said nothing. It may have left a checkpoint and
said so; yet nobody asked it to stop, and taken for that it would be started again for ever."""
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""What a process ends with that the kernel killed, by itself or as a shell tells it."""
OUT_OF_MEMORY = "out_of_memory"
"""Fact of a trainer's `failed`: there was too little memory, the host's or a GPU's."""
ABSENT = (FileNotFoundError, NotADirectoryError)


class TrainerFailed(GenomeError):
    """A trainer process ended without an adapter; it is started again after a while."""


@dataclass
class Claims:
    """What the runners of one daemon have in hand. Changed under the home's lock alone."""

    jobs: dict[str, Waiting] = field(default_factory=dict)
    """By the runner's name. One whose job failed keeps it until it looks again: nobody tries it sooner."""
    served: dict[str, float] = field(default_factory=dict)
    """When a job of each persona was last started."""


@dataclass
class Runner:
    home: Home
    config: Config
    announcer: Announcer
    gate: Alarm
    command: Callable[[str, Path, Path], list[str]] = catalog.command
    """(trainer, job directory, checkpoint directory) → what to run."""
    interrupt: Alarm = field(default_factory=Alarm)
    """Rung when a job was held or training paused: what runs is looked at again."""
    name: str = "runner"
    claims: Claims = field(default_factory=Claims)
    admission: Admission | None = None
    """Shared by all runners of a daemon. None: one of its own."""
    succeeded: Callable[[], None] = lambda: None
    """Called after each job: whoever counts failures need not wait for the end of a step."""
    passed_over: set[str] = field(default_factory=set)
    """Jobs that this step found no memory for."""

    def __post_init__(self) -> None:
        self._memory = self.admission or Admission(self.config.training)
        self._served_before = 0.0
        self._short: Short | None = None
        self._asked = False
        """Whether this process was asked to stop because it was held or paused. One that stops by itself has failed."""
        self._ran_out = False
        """Whether it said that it ran out of memory."""

    async def step(self) -> float | None:
        """Runs every job that may run to its end, by turns of the personas. One that there is no memory for waits, and
        the next is tried. Raises TrainerFailed when one wants another start."""
        self.passed_over.clear()
        while (directory := await anyio.to_thread.run_sync(self._next)) is not None:
            await self._run(directory)
            self.succeeded()
        return time.time() + self.config.training.memory_check_seconds if self.passed_over else None

    def _next(self) -> JobDirectory | None:
        with files.locked(self.home.lock):  # the gate moves ended ones away
            self.claims.jobs.pop(self.name, None)
            able = [] if self.home.paused.exists() else self._able()
            chosen = self._chosen([self._waiting(found, state) for found, state in able])
            names = {found.id for found, _ in able} | {job.job for job in self.claims.jobs.values()}
        for job in self._memory.waiting.keys() - names:  # held, withdrawn or paused
            self._end_wait(job)
        return jobs.find(self.home, chosen.job) if chosen else None

    def _able(self) -> list[tuple[JobDirectory, str]]:
        """Jobs that may run and that no runner has, with their states. Ended ones that lie among them are put away."""
        names = {job.job for job in self.claims.jobs.values()}
        states = [(found, found.state()) for found in jobs.active(self.home) if found.id not in names]
        for found, state in states:
            if (result := found.result()) is not None and result.withdrawn:
                retraction.end_withdrawn(self.home, found)
            elif state == "failed":  # given up, and killed before it was moved
                jobs.complete(self.home, found)
        return [(found, state) for found, state in states if state in ("waiting", "training")]

    def _chosen(self, able: list[Waiting]) -> Waiting | None:
        waiting = [job for job in able if job.job not in self.passed_over]
        taken = {(job.persona, job.domain) for job in self.claims.jobs.values()}
        chosen = fairness.next_job(waiting, taken, self._served(waiting))
        if chosen is not None:
            self.claims.jobs[self.name] = chosen
            self._served_before = self.claims.served.get(chosen.persona, 0.0)
            self.claims.served[chosen.persona] = time.time()
        return chosen

    def _waiting(self, found: JobDirectory, state: str) -> Waiting:
        job = found.job()
        return Waiting(job.id, job.persona, job.domain,
                       state == "training" and files.is_held(self.home.checkpoints(job.id) / "lock"))  # fmt: skip

    def _served(self, waiting: list[Waiting]) -> dict[str, float]:
        """Looked up on disk where turns are to be taken, once; then it is known."""
        if len({job.persona for job in waiting} - self.claims.served.keys()) > 1:
            for persona, time_served in last_served(self.home).items():
                self.claims.served.setdefault(persona, time_served)
            for job in waiting:
                self.claims.served.setdefault(job.persona, 0.0)
        return self.claims.served

    async def _run(self, directory: JobDirectory) -> None:
        job = await anyio.to_thread.run_sync(directory.job)
        found = await anyio.to_thread.run_sync(adapters.of_job, self.home, job.persona, job.id)
        if found is None:
            status = await self._train(directory, job)
            if status is None:
                return  # it waits for memory
            if status != 0:
                await anyio.to_thread.run_sync(self._unfinished, directory, job, status)
                return
            try:
                found = await anyio.to_thread.run_sync(self._install, directory, job)
            except InvalidAdapter as error:
                await anyio.to_thread.run_sync(self._unusable, directory, job, error)
                return
        if found is None:
            return  # it was withdrawn
        result = Result(adapter=found.id, train_seconds=runs.train_seconds(directory.events()))
        # First: nobody comes back to a job that has a result, and checkpoints are large.
        await anyio.to_thread.run_sync(files.remove, self.home.checkpoints(job.id))
        if not await anyio.to_thread.run_sync(self._conclude, directory, result):
            return
        self.announcer.tell("trained", job=job.id, persona=job.persona, domain=job.domain, adapter=found.id,
                            seconds=round(result.train_seconds, 1))  # fmt: skip
        self.gate.ring()

    async def _train(self, directory: JobDirectory, job: Job) -> int | None:
        """One process from start to exit; its status. None: there is no memory for one, or it ended for good without.

        A job held or paused meanwhile is asked to stop, and so is one that leaves too little memory.
        """
        lock = self.home.checkpoints(job.id) / "lock"
        await anyio.to_thread.run_sync(process.end_leftover, lock, self.config.daemon.shutdown_seconds)
        try:
            granted = await anyio.to_thread.run_sync(self._memory.admit, directory, job)
        except TooLarge as error:
            await anyio.to_thread.run_sync(self._give_up, directory, job, str(error))
            return None
        if isinstance(granted, Short):
            await anyio.to_thread.run_sync(self._wait_for_memory, directory, job, granted)
            return None
        status, self._short, self._asked, self._ran_out = None, None, False, False
        try:
            status = await self._process(directory, job, granted)
        finally:
            ran_out = self._ran_out or status in KILLED
            ended = partial(self._memory.ended, job.id, self._short is not None or ran_out, ran_out)
            with anyio.CancelScope(shield=True):  # in a thread: another runner's look at a GPU may take seconds
                await anyio.to_thread.run_sync(ended)
        return status

    async def _process(self, directory: JobDirectory, job: Job, granted: Granted) -> int:
        checkpoints, grace = self.home.checkpoints(job.id), self.config.daemon.shutdown_seconds
        command = self.command(job.trainer, directory.path, checkpoints)  # a trainer that is not there was not started
        started = Event.model_validate({"event": "started", **granted.facts})
        await anyio.to_thread.run_sync(directory.record, started)
        self._memory.waiting.pop(job.id, None)
        self.announcer.tell("training_started", job=job.id, persona=job.persona, domain=job.domain,
                            trainer=job.trainer, **granted.facts)  # fmt: skip
        told = catalog.environment(job.trainer, self.config)
        environment = {**catalog.threads(job.settings.threads), **granted.environment, **told}
        async with process.spawn(command, checkpoints / "lock", directory.log, environment) as child:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._stop_when_asked, directory, child)
                    group.start_soon(self._stop_when_short, job, child)
                    heard = await self._listen(directory, child)
                    status = await child.wait() if heard else HUNG
                    group.cancel_scope.cancel()
            except anyio.get_cancelled_exc_class():
                await child.stop(grace)
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(directory.record, Event(event="stopped"))
                raise
            except ExceptionGroup as group:
                raise group.exceptions[0] from group  # a full disk is told as one, not as a group of one
        return status

    async def _listen(self, directory: JobDirectory, child: process.Child) -> bool:
        """Records the child's events until it ends. False: it said nothing for too long, and was stopped."""
        heartbeat, garbage = self.config.training.heartbeat_seconds, 0
        with anyio.move_on_after(heartbeat) as silence:
            async for line in child.lines():
                try:
                    event = Event.model_validate_json(line)
                except ValidationError:
                    garbage += 1
                    if garbage <= MOST_GARBAGE_TOLD:
                        self.announcer.tell("trainer_said", line=line[:200].decode(errors="replace"))
                    continue
                silence.deadline = anyio.current_time() + heartbeat
                self._memory.heard(directory.id, event)
                self._ran_out |= event.event == "failed" and (event.model_extra or {}).get(OUT_OF_MEMORY) is True
                await anyio.to_thread.run_sync(directory.record, event)
                facts = event.model_dump(exclude=UNTOLD, exclude_none=True) | {"job": directory.id}
                self.announcer.tell(f"training_{event.event}", **facts)
            await child.wait()  # it may close its output and stay
        if silence.cancelled_caught:
            failed = Event(event="failed", reason=f"it said nothing for {heartbeat:g} s")
            await anyio.to_thread.run_sync(directory.record, failed)
            await child.stop(self.config.daemon.shutdown_seconds)
        return not silence.cancelled_caught

    async def _stop_when_asked(self, directory: JobDirectory, child: process.Child) -> None:
        while not (directory.held.exists() or self.home.paused.exists()):
            await self.interrupt.wait(None)
        self._asked = True
        await child.stop(self.config.daemon.shutdown_seconds)

    async def _stop_when_short(self, job: Job, child: process.Child) -> None:
        while True:
            short = await anyio.to_thread.run_sync(self._memory.too_little, job.id, job.trainer)
            if short is not None:
                break
            await anyio.sleep(self.config.training.memory_check_seconds)
        self._short = short
        self.announcer.tell("training_short_of_memory", job=job.id, persona=job.persona, domain=job.domain,
                            **short.facts)  # fmt: skip
        await child.stop(self.config.daemon.shutdown_seconds)

    def _wait_for_memory(self, directory: JobDirectory, job: Job, short: Short) -> None:
        """Lets others go first, and says why; again only if it is another reason."""
        self.passed_over.add(job.id)
        with files.locked(self.home.lock):
            self.claims.served[job.persona] = self._served_before
        if self._memory.waiting.get(job.id) != short.need_mb:
            self._memory.waiting[job.id] = short.need_mb
            directory.record(Event.model_validate({"event": "waiting", **short.facts}))
            self._tell("training_waits", job=job.id, persona=job.persona, domain=job.domain, **short.facts)

    def _end_wait(self, job: str) -> None:
        if self._memory.waiting.pop(job, None) is None:
            return
        with suppress(NotFound):
            of = jobs.find(self.home, job).job()
            self._tell("training_wait_ended", job=job, persona=of.persona, domain=of.domain)

    def _conclude(self, directory: JobDirectory, result: Result) -> bool:
        """False if the job was withdrawn meanwhile: then it has a result, which counts."""
        with files.locked(self.home.lock):
            if directory.result() is None:
                result.write(directory.result_file)
                return True
        return False

    def _install(self, directory: JobDirectory, job: Job) -> adapters.Manifest | None:
        """Checks what was trained and puts it in place as the next version of its domain. None: it was withdrawn."""
        weights = lora.read(self.home.checkpoints(job.id) / "adapter")
        described: dict[str, Any] = {
            "id": str(adapters.next_id(self.home, job.persona, job.domain)),
            "base_fingerprint": job.base_fingerprint,
            "trained_on": job.trained_on,
            "parent": job.parent,
            "batch": job.batch,
            "job": job.id,
            "trainer": job.trainer,
            "settings": job.settings.model_dump(),
            "metrics": runs.metrics(directory.events()),
            "created": int(time.time() * 1000),
        }
        with files.locked(self.home.lock):
            if directory.result() is not None:
                return None
            examples = jobs.read_examples(directory.examples)
            described["signals"] = tuple(example.id for example in examples if not example.anchor)
            return adapters.install(self.home, weights, job.copy_of or job.base, described)

    def _unfinished(self, directory: JobDirectory, job: Job, status: int) -> None:
        """A process that ended without an adapter: stopped on request, to be started again, or failed for good."""
        if self._asked or self._short or directory.held.exists() or self.home.paused.exists():
            directory.record(Event(event="stopped"))
            self._tell("training_stopped", job=job.id)
            return
        reason = why(directory, status)
        if directory.events()[-1].event != "failed":
            directory.record(Event(event="failed", reason=reason))
        if directory.starts() >= self.config.training.max_starts:
            self._give_up(directory, job, f"after {directory.starts()} starts: {reason}")
            return
        raise TrainerFailed(f"{job.id}: {reason}", f"It is started again; its log is {directory.log}")

    def _unusable(self, directory: JobDirectory, job: Job, error: InvalidAdapter) -> None:
        """A broken disk is no fault of the adapter, so it is tried again like a trainer that failed; a file that is not
        there is."""
        broken = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, ABSENT)
        if broken and directory.starts() < self.config.training.max_starts:
            raise error
        self._give_up(directory, job, f"its adapter is unusable: {error}")

    def _give_up(self, directory: JobDirectory, job: Job, reason: str) -> None:
        if not self._conclude(directory, Result(reason=reason, train_seconds=runs.train_seconds(directory.events()))):
            return
        jobs.complete(self.home, directory)
        self._tell(
            "job_failed",
            job=directory.id,
            persona=job.persona,
            domain=job.domain,
            reason=reason,
            hint=f"genome training start --job {directory.id} tries again, as genome.toml says by then",
        )

    def _tell(self, event: str, **facts: Any) -> None:
        anyio.from_thread.run_sync(partial(self.announcer.tell, event, **facts))


def last_served(home: Home) -> dict[str, float]:
    """When a job of each persona last said something, in seconds since 1970."""
    served: dict[str, float] = {}
    for directory in (*jobs.active(home), *jobs.completed(home)):
        if directory.events_file.exists():
            persona = directory.job().persona
            served[persona] = max(served.get(persona, 0.0), directory.events_file.stat().st_mtime)
    return served


def why(directory: JobDirectory, status: int) -> str:
    """The reason the trainer gave, else its exit status and the end of its log."""
    events = directory.events()
    last_start = max((index for index, event in enumerate(events) if event.event == "started"), default=0)
    for event in events[last_start:]:
        if event.event == "failed" and event.reason:
            return event.reason
    said = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    if status in KILLED:
        said += (
            ": the machine probably ran out of memory. Lower training.batch_size or training.max_tokens in "
            "genome.toml, or stop what else takes memory"
        )
    log = (
        directory.log.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
        if directory.log.exists()
        else ""
    )
    return f"{said}; {log.splitlines()[-1]}" if log else said

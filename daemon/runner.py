"""The runner loop: a training job in a child process; what it says is recorded, its adapter installed.

There is one loop for each job that may train at the same time; `Claims` keep them apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from pydantic import ValidationError

from daemon import process
from daemon.events import Alarm, Announcer
from daemon.trainers import catalog
from genome import adapters, fairness, files, jobs, lora, retraction
from genome.config import Config
from genome.errors import GenomeError, InvalidAdapter
from genome.fairness import Waiting
from genome.jobs import EXIT_STOPPED, Event, Job, JobDirectory, Result
from genome.layout import Home

LAST_WORDS_BYTES = 2000


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
    succeeded: Callable[[], None] = lambda: None
    """Called after each job: whoever counts failures need not wait for the end of a step."""

    async def step(self) -> float | None:
        """Runs every job that may run to its end, by turns of the personas. Raises TrainerFailed when one wants another
        start."""
        while (directory := await anyio.to_thread.run_sync(self._next)) is not None:
            await self._run(directory)
            self.succeeded()
        return None

    def _next(self) -> JobDirectory | None:
        with files.locked(self.home.lock):  # the gate moves ended ones away
            self.claims.jobs.pop(self.name, None)
            if self.home.paused.exists():
                return None
            taken = self.claims.jobs.values()
            names = {job.job for job in taken}
            states = [(found, found.state()) for found in jobs.active(self.home) if found.id not in names]
            for found, state in states:
                if (result := found.result()) is not None and result.withdrawn:
                    retraction.end_withdrawn(self.home, found)
                elif state == "failed":  # given up, and killed before it was moved
                    jobs.complete(self.home, found)
            able = [(found, state) for found, state in states if state in ("waiting", "training")]
            waiting = [self._waiting(found, state) for found, state in able]
            chosen = fairness.next_job(waiting, {(job.persona, job.domain) for job in taken}, self._served(waiting))
            if chosen is None:
                return None
            self.claims.jobs[self.name] = chosen
            self.claims.served[chosen.persona] = time.time()
            return jobs.find(self.home, chosen.job)

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
            if status != 0:
                await anyio.to_thread.run_sync(self._unfinished, directory, job, status)
                return
            try:
                found = await anyio.to_thread.run_sync(self._install, directory, job)
            except InvalidAdapter as error:
                if isinstance(error.__cause__, OSError):
                    raise  # a broken disk is no fault of the adapter: it is tried again, as with a full one
                await anyio.to_thread.run_sync(self._give_up, directory, job, f"its adapter is unusable: {error}")
                return
        if found is None:
            return  # it was withdrawn
        result = Result(adapter=found.id, train_seconds=trained_seconds(directory.events()))
        # First: nobody comes back to a job that has a result, and checkpoints are large.
        await anyio.to_thread.run_sync(files.remove, self.home.checkpoints(job.id))
        if not await anyio.to_thread.run_sync(self._conclude, directory, result):
            return
        self.announcer.tell("trained", job=job.id, persona=job.persona, domain=job.domain, adapter=found.id,
                            seconds=round(result.train_seconds, 1))  # fmt: skip
        self.gate.ring()

    async def _train(self, directory: JobDirectory, job: Job) -> int:
        """One process from start to exit; its status. A job held or paused meanwhile is asked to stop."""
        checkpoints = self.home.checkpoints(job.id)
        lock, grace = checkpoints / "lock", self.config.daemon.shutdown_seconds
        await anyio.to_thread.run_sync(process.end_leftover, lock, grace)
        command = self.command(job.trainer, directory.path, checkpoints)  # a trainer that is not there was not started
        await anyio.to_thread.run_sync(directory.record, Event(event="started"))
        self.announcer.tell("training_started", job=job.id, trainer=job.trainer)
        told = {"OMP_NUM_THREADS": str(job.settings.threads), **catalog.environment(job.trainer, self.config)}
        async with process.spawn(command, lock, directory.log, told) as child:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._stop_when_asked, directory, child)
                    await self._listen(directory, child)
                    status = await child.wait()
                    group.cancel_scope.cancel()
            except anyio.get_cancelled_exc_class():
                await child.stop(grace)
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(directory.record, Event(event="stopped"))
                raise
            except ExceptionGroup as group:
                raise group.exceptions[0] from group  # a full disk is told as one, not as a group of one
        return status

    async def _listen(self, directory: JobDirectory, child: process.Child) -> None:
        """Records the child's events until it closes its output, or says nothing for too long."""
        heartbeat = self.config.training.heartbeat_seconds
        with anyio.move_on_after(heartbeat) as silence:
            async for line in child.lines():
                silence.deadline = anyio.current_time() + heartbeat
                try:
                    event = Event.model_validate_json(line)
                except ValidationError:
                    self.announcer.tell("trainer_said", line=line[:200].decode(errors="replace"))
                    continue
                await anyio.to_thread.run_sync(directory.record, event)
                self.announcer.tell(f"training_{event.event}", job=directory.id, **event.model_dump(
                    exclude={"event", "time"}, exclude_none=True))  # fmt: skip
        if silence.cancelled_caught:
            failed = Event(event="failed", reason=f"it said nothing for {heartbeat:g} s")
            await anyio.to_thread.run_sync(directory.record, failed)
            await child.stop(self.config.daemon.shutdown_seconds)

    async def _stop_when_asked(self, directory: JobDirectory, child: process.Child) -> None:
        while not (directory.held.exists() or self.home.paused.exists()):
            await self.interrupt.wait(None)
        await child.stop(self.config.daemon.shutdown_seconds)

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
        events = directory.events()
        losses = [event.loss for event in events if event.loss is not None]
        described: dict[str, Any] = {
            "id": str(adapters.next_id(self.home, job.persona, job.domain)),
            "base_fingerprint": job.base_fingerprint,
            "parent": job.parent,
            "batch": job.batch,
            "job": job.id,
            "trainer": job.trainer,
            "settings": job.settings.model_dump(),
            "metrics": {"last_loss": losses[-1]} if losses else {},
            "created": int(time.time() * 1000),
        }
        with files.locked(self.home.lock):
            if directory.result() is not None:
                return None
            examples = jobs.read_examples(directory.examples)
            described["signals"] = tuple(example.id for example in examples if not example.anchor)
            return adapters.install(self.home, weights, job.base, described)

    def _unfinished(self, directory: JobDirectory, job: Job, status: int) -> None:
        """A process that ended without an adapter: stopped on request, to be started again, or failed for good."""
        if status == EXIT_STOPPED or directory.held.exists() or self.home.paused.exists():
            directory.record(Event(event="stopped"))
            self._tell("training_stopped", job=job.id)
            return
        reason = why(directory, status)
        if directory.starts() >= self.config.training.max_starts:
            self._give_up(directory, job, f"after {directory.starts()} starts: {reason}")
            return
        raise TrainerFailed(f"{job.id}: {reason}", f"It is started again; its log is {directory.log}")

    def _give_up(self, directory: JobDirectory, job: Job, reason: str) -> None:
        if not self._conclude(directory, Result(reason=reason, train_seconds=trained_seconds(directory.events()))):
            return
        jobs.complete(self.home, directory)
        self._tell(
            "job_failed",
            job=directory.id,
            persona=job.persona,
            domain=job.domain,
            reason=reason,
            hint=f"genome training start --job {directory.id} tries again",
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
    log = (
        directory.log.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
        if directory.log.exists()
        else ""
    )
    return f"{said}; {log.splitlines()[-1]}" if log else said


def trained_seconds(events: list[Event]) -> float:
    """Time between each start and the last word of that process, added up."""
    total, began, last = 0.0, None, 0.0
    for event in events:
        if event.event == "started":
            total += last - began if began is not None else 0.0
            began = event.time
        last = event.time
    return total + (last - began if began is not None else 0.0)

"""Whether there is memory for a training: asked before one starts, and again and again while it runs.

One for all runners of a daemon, so that two jobs are never admitted to the same bytes: what a job was admitted to and
has not taken yet is no longer free.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daemon import footprints, free_memory
from daemon.free_memory import Memory
from daemon.trainers import catalog
from genome import jobs, memory, shapes
from genome.config import Training
from genome.errors import GenomeError
from genome.jobs import JobDirectory
from genome.memory import MIB, Library, Need, Plan, Room, Work
from genome.shapes import Shape
from genome.training import Event, Job, TrainingSettings

ROOM_AFTER_STOP = 0.25
"""Of its need, that must be free beside it before a job goes on that was stopped for memory; each time as much more."""


class TooLarge(GenomeError):
    """A training that this machine has no memory for, whatever else runs."""


@dataclass(frozen=True)
class Granted:
    """A training may start. Without a plan nobody knows what it needs: its base cannot be read, or memory cannot; or it
    needs none here."""

    plan: Plan | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the event that says so."""

    @property
    def environment(self) -> dict[str, str]:
        return self.plan.environment if self.plan else {}


@dataclass(frozen=True)
class Short:
    """There is too little memory now."""

    reason: str
    need_mb: int
    """With what stays free, and what is promised to other jobs."""
    free_mb: int

    @property
    def facts(self) -> dict[str, Any]:
        return {"reason": self.reason, "need_mb": self.need_mb, "free_mb": self.free_mb}


@dataclass
class Taken:
    """By a job that runs, in bytes."""

    host: int
    accelerator: int
    peak: int = 0
    """What it said it had, at its highest."""
    stepped: bool = False
    """A step took all it ever takes of a GPU."""
    passes: int = 0
    """Its largest pass, as it was told to cut them; 0: nobody told it."""

    @property
    def outstanding(self) -> tuple[int, int]:
        """What it may still take."""
        return max(0, self.host - self.peak), 0 if self.stepped else self.accelerator


@dataclass(frozen=True)
class _Case:
    """What is known of a job that asks."""

    shape: Shape
    settings: TrainingSettings
    work: Work
    library: Library
    known: bool
    """Whether it was measured what the trainer takes."""

    def plan(self, room: Room) -> Plan:
        return memory.plan(self.shape, self.settings, self.work, self.library, room)


@dataclass
class Admission:
    settings: Training
    read: Callable[[bool], Memory | None] = free_memory.read
    """What is free; told whether the GPU counts."""
    running: dict[str, Taken] = field(default_factory=dict)
    """By job, in the order in which they were admitted."""
    stops: dict[str, int] = field(default_factory=dict)
    """How often a job ended for want of memory."""
    passes: dict[str, int] = field(default_factory=dict)
    """Bytes that the passes of a job may take: half of what they were reckoned to take when it ran out of memory."""
    waiting: dict[str, int] = field(default_factory=dict)
    """MiB that jobs wait for, as it was told of them."""
    cases: dict[str, _Case | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def floor(self) -> int:
        """Bytes that stay free."""
        return self.settings.min_free_mb * MIB

    def admit(self, directory: JobDirectory, job: Job) -> Granted | Short:
        """Blocks. Raises TooLarge if it could never be granted. What is granted is taken until `ended`."""
        if catalog.is_remote(job.trainer):
            return Granted()
        gpu = footprints.uses_gpu(job.trainer)
        with self.lock:
            if job.id not in self.cases:
                self.cases[job.id] = _case(directory, job, gpu)
            case, found = self.cases[job.id], self.read(gpu)
            if found is None:
                self.running[job.id] = Taken(0, 0)
                return Granted()
            if case is None or not case.known:
                return self._unknown(job.id, case, found)
            largest = Room(found.total - self.floor, _less(found.gpu_total, self.floor))
            self._check(case, largest)
            held = [sum(each) for each in zip((0, 0), *(job.outstanding for job in self.running.values()), strict=True)]
            slack = self._slack(job.id, case, largest)
            room = Room(found.free - self.floor - held[0], _less(found.gpu_free, self.floor + held[1]), slack)
            plan = case.plan(replace(room, passes=self._passes(job.id)))
            if not room.holds(plan.need):
                return _short(plan.need, room, found, (self.floor + held[0], self.floor + held[1]))
            self.running[job.id] = Taken(*plan.need.split(found.gpu_free is not None), passes=plan.need.passes)
            return Granted(plan, _facts(plan, found))

    def _unknown(self, job: str, case: _Case | None, found: Memory) -> Granted | Short:
        """Of a trainer whose need nobody knows: it starts above the floor and is watched. With each stop for memory
        twice as much must be free, or it would stop and start for ever."""
        totals = (found.total, found.total if found.gpu_total is None else found.gpu_total)
        wanted = min(self.floor << self.stops.get(job, 0), max(self.floor, min(totals) - self.floor))
        if found.least < wanted:
            need_mb, free_mb = _mb(wanted), found.least // MIB
            return Short(f"waits for memory: {need_mb} MiB are to be free, {free_mb} MiB are", need_mb, free_mb)
        self.running[job] = taken = Taken(0, 0)
        if case is None:
            return Granted()
        room = Room(found.free - self.floor, _less(found.gpu_free, self.floor), passes=self._passes(job))
        plan = case.plan(room)
        taken.passes = plan.need.passes
        return Granted(plan, _facts(plan, found))

    def heard(self, job: str, event: Event) -> None:
        """What a job says of itself while it runs."""
        if (taken := self.running.get(job)) is not None:
            taken.peak = max(taken.peak, int((event.memory_mb or 0) * MIB))
            taken.stepped = taken.stepped or event.loss is not None

    def too_little(self, job: str, trainer: str) -> Short | None:
        """What is wrong, if a job that runs must stop now; of several, the one that began last. Blocks."""
        found = self.read(footprints.uses_gpu(trainer))
        with self.lock:
            if found is None or found.least >= self.floor or job != next(reversed(self.running), None):
                return None
        free = found.least // MIB
        return Short(f"{free} MiB of memory free, less than training.min_free_mb", self.settings.min_free_mb, free)

    def ended(self, job: str, for_memory: bool = False, ran_out: bool = False) -> None:
        """It runs no more; ``for_memory``: because there was too little. ``ran_out``: it took what there was, so what
        it was reckoned to need was wrong: it is cut smaller, however much may be free."""
        with self.lock:
            taken = self.running.pop(job, None)
            self.cases.pop(job, None)
            if for_memory or ran_out:
                self.stops[job] = self.stops.get(job, 0) + 1
            if ran_out and taken is not None and taken.passes:
                self.passes[job] = taken.passes // 2

    def _passes(self, job: str) -> float:
        return self.passes.get(job, math.inf)

    def _check(self, case: _Case, largest: Room) -> None:
        plan = case.plan(largest)
        if largest.holds(plan.need):
            return
        host, accelerator = plan.need.split(largest.accelerator is not None)
        wants, has, where = (
            (accelerator, largest.accelerator or 0, "the GPU") if host <= largest.host else (host, largest.host, "here")
        )
        raise TooLarge(
            f"it needs {_mb(wants)} MiB of memory at least, and {where} there could be {_mb(has)} MiB beside "
            f"training.min_free_mb = {self.settings.min_free_mb}",
            "Lower training.max_tokens or training.rank, or take a smaller or a quantised base",
        )

    def _slack(self, job: str, case: _Case, largest: Room) -> tuple[float, float]:
        """More for a job that was stopped for memory before, of the host's and of a GPU's, but no more of either than
        the machine could ever have."""
        need = case.plan(Room(0, largest.accelerator and 0)).need
        host, accelerator = need.split(largest.accelerator is not None)
        wanted = 1 + ROOM_AFTER_STOP * self.stops.get(job, 0)
        most = largest.host / max(host, 1), (largest.accelerator or 0) / max(accelerator, 1)
        return max(1.0, min(wanted, most[0])), max(1.0, min(wanted, most[1]))


def _case(directory: JobDirectory, job: Job, gpu: bool) -> _Case | None:
    """None: its files cannot be read, of which its trainer tells."""
    with suppress(GenomeError, OSError):
        settings = job.settings
        if job.parent_path:  # whose rank stays
            settings = settings.model_copy(update={"rank": footprints.rank(Path(job.parent_path), settings.rank)})
        work = memory.work(jobs.read_examples(directory.examples), settings)
        library, known = footprints.library(job, gpu), footprints.known(job.trainer)
        return _Case(shapes.of(Path(job.base)), settings, work, library, known)
    return None


def _less(total: int | None, taken: int) -> int | None:
    return None if total is None else total - taken


def _mb(size: float) -> int:
    return math.ceil(max(0.0, size) / MIB)


def _facts(plan: Plan, found: Memory) -> dict[str, Any]:
    on_gpu = found.gpu_free is not None
    host, accelerator = plan.need.split(on_gpu)
    facts = {"pass_tokens": plan.pass_tokens, "gradient_checkpointing": plan.gradient_checkpointing,
             "memory_need_mb": _mb(host), "memory_free_mb": found.free // MIB}  # fmt: skip
    gpu = {"gpu_need_mb": _mb(accelerator), "gpu_free_mb": (found.gpu_free or 0) // MIB}
    return {**facts, **gpu} if on_gpu else facts


def _short(need: Need, room: Room, found: Memory, kept: tuple[int, int]) -> Short:
    """Of the memory that is missing; ``kept``: what stays free there, or is promised."""
    host, accelerator = need.split(room.accelerator is not None)
    wants, on_gpu = host * room.slack[0], accelerator * room.slack[1]
    wants, keeps, free, where = (
        (on_gpu, kept[1], found.gpu_free or 0, " on the GPU")
        if wants <= room.host
        else (wants, kept[0], found.free, "")
    )
    need_mb, free_mb = _mb(wants + keeps), free // MIB
    return Short(f"waits for memory: needs {need_mb} MiB{where}, {free_mb} MiB free", need_mb, free_mb)

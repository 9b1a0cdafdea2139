"""The supervisor: one task group in which every loop waits for something and then runs one step.

A step that fails is told, waited for with growing patience that no ring cuts short, and tried again; the other loops go
on. Nothing is kept
in memory that the disk does not say, so stopping anywhere and starting again is all the recovery there is.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from daemon import alerts, host, monitor, orders, watcher, worker_client
from daemon.admission import Admission
from daemon.alerts import Alerts
from daemon.deployer import Deployer
from daemon.events import Alarm, Alarms, Announcer
from daemon.gate import Gate
from daemon.ingest import Ingest
from daemon.monitor import Monitor
from daemon.planner import Planner
from daemon.pruner import Pruner
from daemon.rehearser import Rehearser
from daemon.runner import Claims, Runner
from daemon.searcher import Searcher
from daemon.trainers import catalog
from daemon.worker_client import WorkerClient
from genome import bases, batches, files, retraction
from genome.buffer import Buffer
from genome.config import Config
from genome.errors import GenomeError, Unavailable
from genome.feedback import Feedback
from genome.layout import Home
from genome.service_manager import notify

PLANNER_REST_SECONDS = 0.1
"""Signals may arrive by the thousand a second; nobody needs a batch sooner than this."""


class Loop(Protocol):
    name: str

    async def step(self) -> float | None:
        """Does all there is to do. Returns when to look again (seconds since 1970); None: when woken."""


@dataclass
class Trouble:
    """Why a loop is waiting to try again, for `genome status`."""

    message: str
    failures: int
    """In a row, for the same reason."""
    next_try: float
    waits_for: str = ""
    """worker: it is away, and the loop fails for nothing else."""


@dataclass
class Supervisor:
    """Composition of the daemon: what runs, and what wakes it."""

    home: Home
    config: Config
    announcer: Announcer
    worker: WorkerClient
    ingest: Ingest
    planner: Planner
    runners: tuple[Runner, ...]
    """One for each job that may train at the same time."""
    gate: Gate
    deployer: Deployer
    monitor: Monitor
    pruner: Pruner
    searcher: Searcher
    rehearser: Rehearser
    alerts: Alerts
    alarms: dict[str, Alarm]
    trouble: dict[str, Trouble] = field(default_factory=dict)
    retries: dict[str, Alarm] = field(default_factory=lambda: defaultdict(Alarm))
    """By loop that failed: what alone wakes it before its next try."""
    worker_serves: bool = False
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        for runner in self.runners:  # whose steps may last for days
            runner.succeeded = partial(self._succeeded, runner.name)

    @property
    def loops(self) -> tuple[Loop, ...]:
        return (self.ingest, self.planner, *self.runners, self.gate, self.deployer, self.monitor, self.searcher,
                self.rehearser, self.pruner, self.alerts, *self.alerts.couriers)  # fmt: skip

    async def run(self, stop: anyio.Event) -> None:
        """Until ``stop`` is set; then a running trainer is given time to leave a checkpoint."""
        async with anyio.create_task_group() as group:
            watching = anyio.Event()
            group.start_soon(self._watch_files, watching)
            await watching.wait()
            group.start_soon(self._watch_worker)
            for loop in self.loops:
                group.start_soon(self._run_loop, loop)
            await stop.wait()
            group.cancel_scope.cancel()

    async def _run_loop(self, loop: Loop) -> None:
        alarm = self.alarms[loop.name]
        while True:
            try:
                look_again = await loop.step()
            except Exception as error:  # a loop must outlive whatever happens in it; it is told and tried again
                await self.retries[loop.name].wait(self._failed(loop.name, error))
            else:
                self._succeeded(loop.name)
                await alarm.wait(look_again)

    def _succeeded(self, name: str) -> None:
        if self.trouble.pop(name, None):
            self.announcer.tell("recovered", loop=name)

    def _failed(self, name: str, error: Exception) -> float:
        waits_for = "worker" if isinstance(error, Unavailable) and not self.worker_serves else ""
        known = self.trouble.get(name)
        failures = known.failures + 1 if known and known.waits_for == waits_for else 1
        settings = self.config.daemon
        pause = min(settings.max_backoff_seconds, settings.backoff_seconds * 2 ** min(failures - 1, 30))
        next_try = time.time() + pause
        expected = isinstance(error, GenomeError)
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        self.trouble[name] = Trouble(message, failures, next_try, waits_for)
        why = {"waits_for": waits_for} if waits_for else {}
        self.announcer.tell("loop_failed", loop=name, error=message, failures=failures, retry_seconds=pause, **why)
        if not expected:
            self.announcer.log.error("unexpected", loop=name, exc_info=error)
        return next_try

    async def _watch_worker(self) -> None:
        """Wakes what needs the worker whenever it begins to serve. While it is away, gRPC waits for it."""
        while True:
            serving = False
            try:
                async for serving in self.worker.watch():
                    self._worker_is(serving)
            except GenomeError:
                pass  # the connection ended; whoever needs the worker says so itself
            if serving:
                self._worker_is(False)
            await anyio.sleep(self.config.daemon.backoff_seconds)  # for one that answers, and refuses, at once

    def _worker_is(self, serving: bool) -> None:
        self.worker_serves = serving
        self.announcer.tell("worker_serving" if serving else "worker_not_serving")
        if serving:
            for name in ("planner", "gate", "deployer", "rehearser"):
                self.alarms[name].ring()
            for name, trouble in self.trouble.items():
                if trouble.waits_for:
                    self.retries[name].ring()

    async def _watch_files(self, watching: anyio.Event) -> None:
        """Wakes the loops whose files changed. The scans are the truth: a missed event costs time, never data."""
        async with aclosing(watcher.changes(self.home, self.announcer)) as changes:
            async for names in changes:
                watching.set()
                for name in names:
                    self.alarms[name].ring()
                if "runner" in names:
                    for runner in self.runners:
                        self.alarms[runner.name].ring()
                        runner.interrupt.ring()


async def serve(home: Home, config: Config) -> None:
    """The daemon's life: take the home, mend what a crash left, run until told to stop."""
    from daemon.service import serving  # gRPC's door is opened last

    host.spare_memory()
    base_path = await anyio.to_thread.run_sync(bases.resolve, config.base)
    fingerprint = await anyio.to_thread.run_sync(bases.fingerprint, base_path)
    await anyio.to_thread.run_sync(orders.check_base, config, base_path)
    with files.locked(home.daemon_lock, f"the daemon with process id {os.getpid()}", wait=False):
        await anyio.to_thread.run_sync(recover, home)
        async with host.stop_signal() as stop, worker_client.connect(config, home) as worker:
            supervisor = await compose(home, config, worker, base_path, fingerprint)
            async with serving(supervisor), anyio.create_task_group() as group:
                group.start_soon(host.watchdog)
                supervisor.announcer.tell("started", home=str(home.root), base=config.base)
                notify("READY=1")
                await supervisor.run(stop)
                notify("STOPPING=1")
                group.cancel_scope.cancel()
            await anyio.to_thread.run_sync(supervisor.ingest.buffer.flush)
            await anyio.to_thread.run_sync(supervisor.alerts.keep)  # what was told while the loops ended
            supervisor.announcer.tell("stopped")


def recover(home: Home) -> None:
    """Syncs what is there and removes half-made things. All else is repaired by the loops, since they reconcile."""
    for directory in (home.inbox, home.rejected, home.active_jobs, home.completed_jobs, home.adapters, home.alerts):
        files.make_directory(directory)
    with files.locked(home.lock):
        # What a killed daemon wrote and did not sync would be taken for stored, and its source be removed.
        files.sync_found(home.root, (home.inbox, home.lock.parent, home.root / "checkpoints"))
        batches.settle(home)
        for path in _half_made(home):
            files.remove(path)
        retraction.settle(home, time.time())


def _half_made(home: Home) -> list[Path]:
    """What a crash left half-made; neither the user's, nor in a job's checkpoints.

    There the last daemon's trainer may still be writing, and removing beside it fails; the next trainer clears up.
    """
    found = []
    for folder, folders, names in os.walk(home.root):
        if Path(folder) != home.inbox:
            found += [Path(folder, name) for name in (*folders, *names) if name.startswith(files.UNFINISHED)]
        if Path(folder) in (home.inbox, home.checkpoints("")):
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(files.UNFINISHED)]
    return found


async def compose(home: Home, config: Config, worker: WorkerClient, base: Path, fingerprint: str) -> Supervisor:
    """Everything the daemon is made of, wired."""
    runners = ("runner", *(f"runner-{number}" for number in range(2, config.training.max_jobs + 1)))
    others = ("ingest", "planner", "gate", "deployer", "monitor", "searcher", "rehearser", "pruner")
    alarms = {name: Alarm() for name in (*others, *runners)}
    to_run, claims = Alarms(tuple(alarms[name] for name in runners)), Claims()
    alarms["planner"].rest_seconds = PLANNER_REST_SECONDS
    alarms["monitor"].rest_seconds = monitor.REST_SECONDS
    announcer, said = Announcer(), Feedback(home, config.longest_window_days)
    admission = Admission(config.training)
    buffer = Buffer(home, config.intake)
    train = partial(catalog.command, program=config.training.command)
    await anyio.to_thread.run_sync(buffer.load)
    return Supervisor(
        home=home,
        config=config,
        announcer=announcer,
        worker=worker,
        ingest=Ingest(home, config, buffer, announcer, alarms["planner"], alarms["monitor"]),
        planner=Planner(
            home, config, base, fingerprint, worker, announcer, to_run, said.samples, partial(orders.rebuild, home)
        ),
        runners=tuple(
            Runner(home, config, announcer, alarms["gate"], train, name=name, claims=claims, admission=admission)
            for name in runners
        ),
        gate=Gate(home, config, worker, announcer, alarms["planner"], alarms["deployer"]),
        deployer=Deployer(home, worker, announcer),
        monitor=Monitor(home, config, announcer, alarms["deployer"]),
        pruner=Pruner(home, config, announcer),
        searcher=Searcher(home, config, base, fingerprint, announcer, to_run),
        rehearser=Rehearser(home, config, fingerprint, worker, announcer),
        alerts=alerts.compose(home, config, announcer, alarms),
        alarms=alarms,
    )

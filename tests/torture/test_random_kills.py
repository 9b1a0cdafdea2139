"""Kills at random, under load: supervisor, trainer and worker die by kill -9 and the home is held against what went in.

A short run by itself, a thousand kills with GENOME_TORTURE=1, a hundred with 0.1. GENOME_TORTURE_SEED gives it
another seed: what is fed, who is killed and when follow from it, as far as the machine's timing lets them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from kills_load import Calls, Files, Injected
from kills_model import counts, violations, waiting
from kills_processes import Processes, until
from kills_supervisor import TRAINER

from genome import registry
from genome.layout import Home
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc

KILLS = round(1000 * float(os.environ.get("GENOME_TORTURE", "0"))) or 24
SEED = int(os.environ.get("GENOME_TORTURE_SEED", "20"))
VICTIMS = {"supervisor": 35, "trainer": 30, "worker": 20, "supervisor and trainer": 8, "everything": 7}
"""So often of a hundred."""
LONGEST_DELAY = 0.15
UP_SECONDS, BUSY_SECONDS, SETTLE_SECONDS = 60.0, 2.0, 120.0
THRESHOLD = 20

SETTINGS = f"""
[daemon]
backoff_seconds = 0.02
max_backoff_seconds = 0.2
shutdown_seconds = 5.0
[worker]
adapter_grace_seconds = 0.2
[intake]
settle_seconds = 0.0
inbox_retention_hours = 0.0
[triggers.threshold]
min_examples = {THRESHOLD}
[training]
trainer = "{TRAINER}"
replay_fraction = 0.0
max_starts = 1000000
[gate]
min_held_out = 2
anchors = 0
ladder = []
undecided = "refuse"
"""


@dataclass
class Killer:
    """Picks who dies and when, and starts again what nobody else would."""

    processes: Processes
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)

    def kill(self) -> None:
        """One kill of one victim, or of several at once."""
        victim = self.chance.choices([*VICTIMS], [*VICTIMS.values()])[0]
        young, delay = self.chance.random() < 0.25, self.chance.uniform(0, LONGEST_DELAY)
        moment = self.chance.choice((*self._moments(), None, None))
        if not young:  # else it may die before it has begun to serve
            self._wait_for_doors()
            if moment is not None:
                until(moment, BUSY_SECONDS)
        if victim == "trainer" and not until(self.processes.trainer, BUSY_SECONDS):
            victim = "supervisor"
        time.sleep(delay)  # the moment itself: what happens meanwhile is what is to be interrupted
        self.processes.one_trainer_a_job()
        if "trainer" in victim or victim == "everything":
            self.killed["trainer"] += self.processes.kill_trainer()
        for served in (self.processes.supervisor, self.processes.worker):
            if served.name in victim or victim == "everything":
                self.killed[served.name] += 1
                self.processes.restart(served)

    def _moments(self) -> tuple[Callable[[], object], ...]:
        """What the disk shows of the way from a line to a promotion."""
        home = self.processes.home
        return (
            lambda: any(home.inbox.rglob("*.jsonl")),
            lambda: any(home.active_jobs.glob("job-*")),
            self.processes.trainer,
            lambda: any(home.active_jobs.glob("job-*/result.json")),
            lambda: any(home.active_jobs.glob("job-*/verdict.json")),
        )

    def _wait_for_doors(self) -> None:
        for served in (self.processes.supervisor, self.processes.worker):
            assert until(served.is_up, UP_SECONDS), f"the {served.name} does not start: {served.last_words()}"


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose sockets' paths are short enough."""
    return tmp_path_factory.mktemp("k")


@pytest.fixture
def processes(short: Path) -> Iterator[Processes]:
    base, home = short / "base", Home(short / "h")
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"nobody reads this")
    home.inbox.mkdir(parents=True)
    home.config.write_text(f"base = {json.dumps(str(base))}\n{SETTINGS}")
    started = Processes.started(home, short)
    yield started
    started.end()


@pytest.mark.timeout(120 + 6 * KILLS)
def test_killed_at_random_it_goes_on(processes: Processes, short: Path) -> None:
    """However often any of the processes is killed, nothing acknowledged is lost and nothing is trained twice."""
    print(f"seed {SEED}, {KILLS} kills")
    injected, began = Injected(), time.monotonic()
    killer = Killer(processes, random.Random(f"{SEED} kills"))
    (short / "aside").mkdir()
    kill_under_load(killer, injected, short / "aside")
    print(f"killed {dict(killer.killed)} in {time.monotonic() - began:.0f} s; sent {dict(injected.sent)}")
    wrong = [*come_to_rest(processes), *processes.wrong, *injected.wrong, *violations(processes.home, injected)]
    found = counts(processes.home)
    print(f"found {dict(found)}; met {dict(processes.unexpected())}; violations {len(wrong)}")
    assert not wrong, f"seed {SEED}: {len(wrong)} violations, of which the first: " + "\n".join(wrong[:20])
    assert found["promotions"] >= KILLS // 10, "kills among promotions are what this is about"


def kill_under_load(killer: Killer, injected: Injected, aside: Path) -> None:
    """Returns when everybody who was to be killed was, and all that was to be sent is taken or acknowledged."""
    home = killer.processes.home
    producers = (Files(SEED, injected, home, aside), Calls(SEED, injected, home))
    for producer in producers:
        producer.start()
    for round_number in itertools.count(1):
        for producer in producers:
            producer.order(round_number)
        killer.kill()
        if killer.killed.total() >= KILLS:
            break
    for producer in producers:
        producer.end()
        producer.join(UP_SECONDS)
        assert not producer.is_alive(), f"{producer.name} did not end: {killer.processes.supervisor.last_words()}"


def come_to_rest(processes: Processes) -> Iterator[str]:
    """Lets all that is due be done and stops everything; what is wrong by then."""
    home = processes.home
    if not until(lambda: not waiting(home, THRESHOLD), SETTLE_SECONDS):
        yield f"it does not come to rest: {waiting(home, THRESHOLD)}"
    if not until(lambda: serves(processes), UP_SECONDS):
        yield "the worker serves what was not promoted last"
    for served in (processes.supervisor, processes.worker):
        if status := served.stop():
            yield f"the {served.name} ended with {status} when told to stop: {served.last_words()}"
    for pid, job in processes.trainers().items():
        yield f"trainer {pid} of {job} was left behind"
    for kind, count in processes.unexpected().items():
        # A loop reads beside others, and what it was about to read may have gone on to its next place: it looks again.
        if kind != "FileNotFoundError":
            yield f"the supervisor met {count} {kind}"


def serves(processes: Processes) -> bool:
    """Whether the worker's routes are those that the newest promotions make."""
    wanted = {
        name: [(entry.adapter, entry.scale) for variant in variants for entry in variant.stack]
        for promotion in registry.newest(processes.home)
        for name, variants in registry.routes(processes.home, promotion).items()
    }
    with grpc.insecure_channel(f"unix:{processes.home.worker_socket}") as channel:
        try:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            listed = stub.ListRoutes(pb.ListRoutesRequest(), timeout=10).routes
        except grpc.RpcError:
            return False
    found = {
        route.name: [(entry.adapter_id, entry.scale) for variant in route.variants for entry in variant.stack.entries]
        for route in listed
    }
    return found == wanted

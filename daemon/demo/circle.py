"""One real turn of the loop, watched from outside: real processes, a real drop, real training, a real swap."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import grpc.aio

from daemon import actions, anchors, evaluation, worker_client
from daemon.demo import material
from daemon.demo.material import Material
from daemon.demo.processes import running
from daemon.demo.screen import Screen
from daemon.demo.traffic import Traffic
from daemon.evaluation import Target
from daemon.events import Announcer
from daemon.worker_client import Question, Reply, WorkerClient
from genome import bases, config, jobs, quality, registry, sockets
from genome.config import Config
from genome.errors import Conflict
from genome.layout import Home
from genome.promotions import Stack
from genome.quality import Measures, Verdict
from genome.v1 import learning_pb2, learning_pb2_grpc

TRAFFIC_QUESTIONS = 8


@dataclass(frozen=True)
class Settings:
    home: Path | None = None
    base: str = ""
    signals: Path | None = None
    trainer: str = "torch"
    shuffle_labels: bool = False


@dataclass(frozen=True)
class Answers:
    """What one stack says to the held-out questions and to those of old skills."""

    replies: list[Reply]
    exact_match: float
    measures: Measures
    old: float
    """Exact match on the skills, or token accuracy on the base's own answers."""


@dataclass
class Turn:
    """One demo under way: where it happens and what was measured."""

    settings: Settings
    home: Home
    config: Config
    material: Material
    worker: WorkerClient
    screen: Screen
    events: AsyncIterator[learning_pb2.Event]
    report: dict[str, Any] = field(default_factory=dict)

    async def measure(self) -> Answers:
        """Asks the route as it is served now."""
        stack = registry.stack_of(self.home, self.material.persona)
        replies = await evaluation.ask(self.worker, self.material.held_out, Target(self.material.route))
        return Answers(
            replies,
            evaluation.exact_match(self.material.held_out, replies),
            await evaluation.measure(self.worker, self.material.held_out, stack),
            await self._old_skills(stack),
        )

    async def _old_skills(self, stack: Stack) -> float:
        if self.material.skills:
            replies = await evaluation.ask(self.worker, self.material.skills, Target(self.material.persona))
            return evaluation.exact_match(self.material.skills, replies)
        info = await self.worker.info()
        judging = anchors.judging(self.home, self.config, info.base_fingerprint)
        asked = [Question(answers=(anchor.answer,), text=anchor.prompt) for anchor in judging]
        return quality.measures([scores[0] for scores in await self.worker.score(asked, stack)]).token_accuracy

    async def until(self, *names: str) -> dict[str, Any]:
        """Shows what the daemon tells until it tells one of ``names``; what it said then."""
        async for event in self.events:
            facts = json.loads(event.json)
            self.screen.event(event.name, facts)
            if event.name in names:
                return {"event": event.name, **facts}
        raise Conflict("the daemon's events ended early", f"Its log is {self.home.root / 'logs'}")


async def run(settings: Settings, as_json: bool) -> bool:
    """The whole demo; True if everything ended as it should."""
    screen = Screen(as_json)
    taught = material.from_file(settings.signals) if settings.signals else material.shipped()
    home, settled = await anyio.to_thread.run_sync(_prepare, settings, taught)
    screen.begin(settings, settled.base, taught, home)
    async with (
        running(home) as alive,
        worker_client.connect(settled, home) as worker,
        _daemon_events(home, settled) as events,
    ):
        turn = Turn(settings, home, settled, taught, worker, screen, events)
        good = await alive(_turn(turn))
    screen.end(turn.report, good)
    return good


async def _turn(turn: Turn) -> bool:
    with turn.screen.step("sampling anchors from the base"):
        fingerprint = (await turn.worker.info()).base_fingerprint
        await anchors.ensure(turn.home, turn.config, fingerprint, turn.worker, Announcer(log=_Silent()))
    with turn.screen.step("asking the held-out questions"):
        before = await turn.measure()
    turn.screen.scores("before", before)
    lines = material.shuffled(turn.material.lines) if turn.settings.shuffle_labels else turn.material.lines
    traffic = Traffic(turn.worker, turn.material.route, turn.material.held_out[:TRAFFIC_QUESTIONS])
    async with anyio.create_task_group() as group:
        group.start_soon(traffic.flow)
        dropped = await anyio.to_thread.run_sync(_drop, turn.home, material.to_jsonl(lines))
        turn.screen.dropped(len(lines), turn.home)
        outcome = await turn.until("deployed", "judged", "job_failed")
        if outcome["event"] == "judged" and outcome["promote"]:
            outcome = await turn.until("deployed")
        live = time.perf_counter()
        with turn.screen.step("asking the same questions again"):
            after = await turn.measure()
        turn.screen.scores("after", after)
        rolled_back = outcome["event"] == "deployed" and await _there_and_back(turn, before, after)
        group.cancel_scope.cancel()
    with turn.screen.step("checking every streamed reply against the adapters it names"):
        mixed = await traffic.mixed()
    turn.report.update(
        signals=len(lines),
        **_compared(before, after),
        train_seconds=_train_seconds(turn.home),
        drop_to_live_seconds=round(live - dropped, 2) if outcome["event"] == "deployed" else None,
        swap_ms=round(outcome["swap_ms"], 2) if outcome["event"] == "deployed" else None,
        requests_during_turn=len(traffic.seen) + len(traffic.failures),
        failed_requests=len(traffic.failures),
        mixed_replies=mixed,
        rolled_back=rolled_back,
        refused=outcome["event"] == "judged",
        verdict=_verdict(turn.home),
        home=str(turn.home.root),
    )
    turn.screen.side_by_side(turn.material.held_out, before.replies, after.replies)
    if traffic.failures:
        turn.screen.say(f"first failed request: {traffic.failures[0]}")
    undisturbed = not traffic.failures and mixed == 0
    return undisturbed and (turn.report["refused"] if turn.settings.shuffle_labels else rolled_back)


async def _there_and_back(turn: Turn, before: Answers, after: Answers) -> bool:
    """Rolls back, looks whether the old answers are there, and forward again; True if both are as they were."""
    promoted = registry.stack_of(turn.home, turn.material.persona)
    with turn.screen.step("rolling back"):
        await anyio.to_thread.run_sync(actions.roll_back, turn.home, turn.material.persona, "demo")
        await turn.until("deployed")
        old = await evaluation.ask(turn.worker, turn.material.held_out, Target(turn.material.route))
    with turn.screen.step("rolling forward"):
        await anyio.to_thread.run_sync(actions.deploy, turn.home, promoted[-1].adapter, "demo")
        await turn.until("deployed")
        new = await evaluation.ask(turn.worker, turn.material.held_out, Target(turn.material.route))
    same = [_texts(old) == _texts(before.replies), _texts(new) == _texts(after.replies)]
    turn.screen.say(f"rolled back: the old answers are {'' if same[0] else 'NOT '}back; "
                    f"rolled forward: the new ones are {'' if same[1] else 'NOT '}back")  # fmt: skip
    return all(same)


def _prepare(settings: Settings, taught: Material) -> tuple[Home, Config]:
    """A fresh home whose threshold is the number of lines that will be dropped."""
    root = settings.home.expanduser().absolute() if settings.home else Path(tempfile.mkdtemp(prefix="genome-demo-"))
    if (root / "genome.toml").exists():
        raise Conflict(f"{root} is a home already", "Give the demo an empty directory")
    base = settings.base or str(material.SHIPPED_BASE)
    home = Home(root)
    config.init(home, str(bases.resolve(base)))
    training, gate = ("", "") if settings.base else (material.SHIPPED_BASE_TRAINING, material.SHIPPED_BASE_GATE)
    # Tokens are compared between batches of different make-up, which only float32 keeps equal.
    home.config.write_text(
        f"base = {json.dumps(str(bases.resolve(base)))}\n\n"
        f'[worker]\ndtype = "float32"\n\n'
        f"[triggers.threshold]\nmin_examples = {len(taught.lines)}\n\n"
        f"[gate]\nladder = []\n{gate}\n"  # one turn, one try
        f"[training]\ntrainer = {json.dumps(settings.trainer)}\n{training}"
    )
    return home, config.load(home)


def _drop(home: Home, data: bytes) -> float:
    """One rename into the inbox; returns when, by the monotonic clock."""
    aside = home.root / "corrections.jsonl"
    aside.write_bytes(data)
    shutil.copy2(aside, home.root / "dropping.jsonl")
    (home.root / "dropping.jsonl").rename(home.inbox / "corrections.jsonl")
    return time.perf_counter()


@asynccontextmanager
async def _daemon_events(home: Home, settled: Config) -> AsyncIterator[AsyncIterator[learning_pb2.Event]]:
    """What the daemon tells, from now on."""
    listen = sockets.address(settled.daemon.listen, home.daemon_socket)
    async with grpc.aio.insecure_channel(listen) as channel:
        stub = learning_pb2_grpc.LearningServiceStub(channel)
        call = stub.WatchEvents(learning_pb2.WatchEventsRequest(), wait_for_ready=True)
        stream = call.__aiter__()
        await anext(stream)  # the daemon's word that it is watched
        try:
            yield stream
        finally:
            call.cancel()


def _compared(before: Answers, after: Answers) -> dict[str, float]:
    return {
        "before_exact_match": round(before.exact_match, 4),
        "after_exact_match": round(after.exact_match, 4),
        "retention": round(after.old / before.old, 4) if before.old else 0.0,
        "before_loss": round(before.measures.loss, 4),
        "after_loss": round(after.measures.loss, 4),
        "before_token_accuracy": round(before.measures.token_accuracy, 4),
        "after_token_accuracy": round(after.measures.token_accuracy, 4),
    }


def _train_seconds(home: Home) -> float | None:
    results = [directory.result() for directory in jobs.completed(home)]
    return round(results[-1].train_seconds, 2) if results and results[-1] else None


def _verdict(home: Home) -> dict[str, Any] | None:
    for directory in reversed(jobs.completed(home)):
        if directory.verdict_file.exists():
            return Verdict.read(directory.verdict_file).model_dump(include={"promote", "reason", "findings"})
    return None


def _texts(replies: list[Reply]) -> list[str]:
    return [reply.text for reply in replies]


class _Silent:
    def info(self, *_: Any, **__: Any) -> None:
        """The demo's screen shows this step itself."""

"""One whole turn of the loop in one process: signals in by file and by call, to an adapter that is served.

The loops are the daemon's own, composed by `supervisor.compose`; the trainer copies an adapter made before, and the
worker is an object. A turn is stepped until nothing on disk changes, so it says when it has come to its end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from acts import Fail, Plan

from daemon import supervisor
from daemon.supervisor import Supervisor
from daemon.worker_client import Question, variants_to_proto
from genome import ledger, lora, registry
from genome.config import Config
from genome.errors import GenomeError
from genome.layout import Home
from genome.lines import from_signal
from genome.lora import Factors, Lora
from genome.promotions import Stack, Variants
from genome.scores import AnswerScore
from genome.signals import Defaults, Signal, from_object
from genome.tensors import Tensor
from genome.v1 import inference_pb2 as pb

FINGERPRINT = "f" * 64
TRAINER = Path(__file__).with_name("quick_trainer.py")
ROUNDS = 8
"""More than a turn needs after any one failure."""


def line(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "correction", "input": f"question {number}", "correctOutput": f"answer {number}", **fields}


HELPER = {"personaId": "helper", "domain": "git"}
EVIDENCE = {"type": "mistake", "input": "question 90", "wrongOutput": "no", **HELPER}
DROPPED: dict[str, list[dict[str, Any] | bytes]] = {
    "first.jsonl": [*(line(i, **HELPER) for i in range(5)), b"{ this is no signal", EVIDENCE],
    "helper/git/second.jsonl": [line(5), line(0), b"[]", *(line(i) for i in range(6, 10)), b"null"],
}
"""Files of the inbox. The second repeats a line of the first; its path says persona and domain."""
SUBMITTED = tuple(from_object(line(i, **HELPER), Defaults(1_763_600_000_000)) for i in (10, 11))
"""By call, as gRPC does. Whoever gets no answer asks again."""
QUESTIONS = frozenset({*(f"question {i}" for i in range(12)), "question 90"})
BAD = 3
TEACHING = 12
CONFIG = Config.model_validate(
    {
        "base": "base",
        "intake": {"settle_seconds": 0, "inbox_retention_hours": 0},
        "triggers": {"threshold": {"min_examples": TEACHING}},
        "training": {"trainer": "torch", "max_starts": 5},
        "gate": {"anchors": 0, "min_held_out": 2},
    }
)


def prepare(root: Path) -> Home:
    """A home as a user leaves it: files in the inbox, nothing else."""
    home = Home(root)
    for name, lines in DROPPED.items():
        path = home.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines))
    return home


def make_adapter(directory: Path) -> Path:
    """What the trainer copies."""
    factors = Factors(
        Tensor("F32", (2, 4), np.ones((2, 4), np.float32).tobytes()),
        Tensor("F32", (6, 2), np.ones((6, 2), np.float32).tobytes()),
        1.0,
    )
    directory.mkdir()
    lora.write_peft(directory, Lora({"model.layers.0.self_attn.q_proj": factors}, ""), "base")
    return directory


@dataclass
class Worker:
    """Stands for the inference worker: it starts empty, checks digests, and finds every candidate better."""

    loaded: dict[str, str] = field(default_factory=dict)
    routed: dict[str, Variants] = field(default_factory=dict)
    generation: int = 0

    async def load(self, path: Path, adapter_id: str, digest: str) -> pb.LoadAdapterResponse:
        assert lora.read(path).digest == digest, f"{adapter_id} is not what its manifest says"
        self.loaded[adapter_id] = digest
        return pb.LoadAdapterResponse(load_ms=0.0)

    async def unload(self, adapter_id: str) -> None:
        del self.loaded[adapter_id]

    async def adapters(self) -> list[pb.AdapterInfo]:
        return [pb.AdapterInfo(id=name, digest=digest) for name, digest in self.loaded.items()]

    async def routes(self) -> pb.ListRoutesResponse:
        routes = [pb.Route(name=name, variants=variants_to_proto(variants)) for name, variants in self.routed.items()]
        return pb.ListRoutesResponse(routes=routes, generation=self.generation)

    async def set_routes(
        self, routes: dict[str, Variants], removed: Iterable[str], expected: int
    ) -> pb.SetRouteResponse:
        assert expected == self.generation and not set(removed) & set(routes)
        self.routed |= routes
        self.generation += 1
        return pb.SetRouteResponse(generation=self.generation)

    async def score(self, questions: Sequence[Question], stack: Stack) -> list[tuple[AnswerScore, ...]]:
        better = AnswerScore(-10.0 if stack else -30.0, 10, 9)
        return [(better, *[AnswerScore(-30.0, 10, 9)] * (len(question.answers) - 1)) for question in questions]


async def start(home: Home, made: Path) -> Supervisor:
    """What `supervisor.serve` does before it runs."""
    ledger.RUN_IDS = 4  # so that a turn flushes and merges
    supervisor.recover(home)
    composed = await supervisor.compose(home, CONFIG, Worker(), home.root / "base", FINGERPRINT)  # type: ignore[arg-type]
    # Without site packages and without the environment it starts in 10 ms.
    for runner in composed.runners:
        runner.command = lambda _trainer, job, checkpoints: [
            sys.executable, "-S", "-E", str(TRAINER), str(made), str(job), str(checkpoints)
        ]  # fmt: skip
    return composed


def submit(composed: Supervisor, signals: Sequence[Signal]) -> None:
    """What the daemon's service does with the signals of a call."""
    composed.ingest.buffer.accept([from_signal(signal) for signal in signals], time.time())


async def turn(home: Home, made: Path, plan: Plan, submits: bool = True) -> None:
    """Starts, takes the submitted signals, and steps every loop until the disk rests. What fails is raised."""
    composed = await start(home, made)
    await _to_rest(composed, home, plan, submits, ())


async def failing_turn(home: Home, made: Path, plan: Fail) -> None:
    """As `turn`, but what fails with an OSError or one of ours is tried again, as the supervisor and clients do."""
    patient = (OSError, GenomeError)
    try:
        composed = await start(home, made)
    except patient:
        plan.mend()
        composed = await start(home, made)
    await _to_rest(composed, home, plan, True, patient)


async def _to_rest(
    composed: Supervisor, home: Home, plan: Plan, submits: bool, patient: tuple[type[Exception], ...]
) -> None:
    seen: list[str] = []
    for _ in range(ROUNDS):
        failed = False
        if submits:
            try:
                submit(composed, SUBMITTED)
                submits = False
                plan.mark("submitted")
            except patient:
                failed = True
        for loop in composed.loops:
            try:
                await loop.step()
            except patient:
                failed = True
        if isinstance(plan, Fail) and len(plan.calls) > plan.nth:
            plan.mend()
        before, seen = seen, sorted(str(path) for path in home.root.rglob("*"))
        if before == seen and not failed:
            break
    else:
        raise AssertionError(f"it does not come to rest in {ROUNDS} rounds")
    for promotion in registry.newest(home):
        assert composed.worker.routed == registry.routes(home, promotion), "the worker serves something else"  # type: ignore[attr-defined]


def silence() -> None:
    """The daemon's log goes to standard output, which belongs to the campaign."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

"""Asking the worker questions whose answers are known: exact match, token accuracy, loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon import worker_client
from daemon.worker_client import Question, Reply, WorkerClient
from genome import adapters, quality
from genome.config import Config
from genome.errors import InvalidInput
from genome.layout import Home
from genome.promotions import Stack, StackEntry
from genome.signals import Defaults, Signal, parse
from genome.v1 import inference_pb2 as pb

AT_ONCE = 16
"""Questions asked at a time."""


@dataclass(frozen=True)
class Target:
    """Who is asked: a route by its name, or an explicit stack."""

    route: str = ""
    stack: Stack | None = None

    def fields(self) -> dict[str, Any]:
        return {"route": self.route} if self.stack is None else {"stack": worker_client.to_proto(self.stack)}


async def ask(worker: WorkerClient, signals: Sequence[Signal], target: Target, max_tokens: int = 128) -> list[Reply]:
    """The greedy reply to each signal's question, in order."""
    sampling = pb.Sampling(max_tokens=max_tokens)
    requests = [
        pb.GenerateRequest(
            messages=worker_client.messages(signal.prompt()), sampling=sampling, **target.fields()
        )
        for signal in signals
    ]  # fmt: skip
    return await worker.replies(requests, AT_ONCE)


def exact_match(signals: Sequence[Signal], replies: Sequence[Reply]) -> float:
    """Share of replies that are the known answer, but for white space around it."""
    pairs = zip(signals, replies, strict=True)
    return sum(reply.text.strip() == (signal.correct_output or "").strip() for signal, reply in pairs) / len(signals)


async def measure(worker: WorkerClient, signals: Sequence[Signal], stack: Stack) -> quality.Measures:
    """Loss and token accuracy of the known answers."""
    asked = [Question(answers=(signal.correct_output or "",), turns=tuple(signal.prompt())) for signal in signals]
    return quality.measures([scores[0] for scores in await worker.score(asked, stack)])


def read_signals(path: Path, defaults: Defaults) -> list[Signal]:
    """Every line of a file that teaches, or InvalidInput naming the first that cannot be read."""
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(parse(line, defaults))
            except InvalidInput as error:
                raise InvalidInput(f"{path}:{number}: {error}") from None
    teaching = [signal for signal in found if signal.teaches]
    if not teaching:
        raise InvalidInput(f"{path} holds no question with an answer")
    return teaching


async def validate(home: Home, config: Config, adapter_id: str, test_set: Path) -> dict[str, Any]:
    """One adapter and the base on a test set, on the running worker."""
    made = adapters.manifest(home, adapter_id)
    parsed = adapters.AdapterId.parse(adapter_id)
    signals = read_signals(test_set, Defaults(int(time.time() * 1000), parsed.persona, parsed.domain))
    async with worker_client.connect(config, home) as worker:
        await worker.load(home.adapter(adapter_id), adapter_id, made.digest)
        stacks: dict[str, Stack] = {"adapter": (StackEntry(adapter=adapter_id, digest=made.digest),), "base": ()}
        report: dict[str, Any] = {"questions": len(signals), "id": adapter_id, "digest": made.digest}
        for name, stack in stacks.items():
            measured = await measure(worker, signals, stack)
            replies = await ask(worker, signals, Target(stack=stack))
            report[name] = {"exact_match": exact_match(signals, replies), **measured.model_dump()}
    return report

"""A client that asks without a pause while everything else happens, and the proof that no reply was a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from daemon import worker_client
from daemon.evaluation import Target, ask
from daemon.worker_client import WorkerClient
from genome.errors import GenomeError
from genome.promotions import StackEntry
from genome.signals import Signal
from genome.v1 import inference_pb2 as pb

MAX_TOKENS = 64
Made = tuple[tuple[str, str, float], ...]
"""What made a reply: (adapter id, digest, scale) of the stack; empty for the base alone."""


@dataclass(frozen=True)
class Seen:
    question: int
    text: str
    made: Made
    generation: int


@dataclass
class Traffic:
    """Greedy replies to a few questions in turn, on one route."""

    worker: WorkerClient
    route: str
    questions: Sequence[Signal]
    seen: list[Seen] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def flow(self) -> None:
        """Asks until it is cancelled."""
        index = 0
        while True:
            try:
                await self._ask(index % len(self.questions))
            except GenomeError as error:
                self.failures.append(str(error))
                await anyio.sleep(0.05)
            index += 1

    async def _ask(self, question: int) -> None:
        request = pb.GenerateRequest(
            route=self.route,
            messages=worker_client.messages(self.questions[question].prompt()),
            sampling=pb.Sampling(max_tokens=MAX_TOKENS),
        )
        text, first, last = "", None, None
        async for message in self.worker.generate(request):
            text += message.text
            if message.HasField("served"):
                first, last = first or message.served, message.served
        if first is None or last is None or first != last:
            self.failures.append(f"a reply began as {first} and ended as {last}")
            return
        made = tuple((used.id, used.digest, used.scale) for used in last.adapters)
        self.seen.append(Seen(question, text, made, last.generation))

    async def mixed(self) -> int:
        """Replies that differ from what the adapters they name answer when asked alone, afterwards."""
        expected: dict[tuple[int, Made], str] = {}
        for made in {seen.made for seen in self.seen}:
            stack = tuple(StackEntry(adapter=name, digest=digest, scale=scale) for name, digest, scale in made)
            replies = await ask(self.worker, self.questions, Target(stack=stack), MAX_TOKENS)
            expected.update({(index, made): reply.text for index, reply in enumerate(replies)})
        return sum(seen.text != expected[seen.question, seen.made] for seen in self.seen)

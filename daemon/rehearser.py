"""The rehearser loop: while nobody needs the worker, what serves answers prompts of the base, for the next training.

One at a time, at background priority, and none while a job trains: learning yields to serving. A few answers are made
durable together, so a rehearsal goes on where it was after any stop.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import anyio.to_thread

from daemon import anchors, worker_client
from daemon.anchors import Anchor
from daemon.events import Announcer
from daemon.worker_client import WorkerClient
from genome import rehearsals
from genome.config import Config
from genome.errors import Busy, InvalidInput, NotFound, Unavailable
from genome.layout import Home
from genome.rehearsals import Missing, Rehearsal
from genome.v1 import inference_pb2 as pb

FEW = 8
"""Answers that are made durable together."""
BUSY_SECONDS = 5.0
"""How soon a worker that answers somebody, or does not hold the stack yet, is looked at again."""
AWAY_SECONDS = 60.0
"""… and one that cannot be asked. The supervisor wakes this loop as soon as it serves."""
SEED = 17


@dataclass
class Rehearser:
    home: Home
    config: Config
    base_fingerprint: str
    worker: WorkerClient
    announcer: Announcer

    name = "rehearser"

    async def step(self) -> float | None:
        """Asks for what is missing. Returns when to look again; None: when something serves or a job has ended."""
        prompts = await anyio.to_thread.run_sync(anchors.training, self.home, self.config, self.base_fingerprint)
        if not prompts:
            return None  # they are sampled with the next job, and its end is heard of
        try:
            while waiting := await anyio.to_thread.run_sync(self._due):
                went_on = [await self._go_on(missing, prompts) for missing in waiting]
                if not any(went_on):
                    return time.time() + BUSY_SECONDS
        except Unavailable:
            return time.time() + AWAY_SECONDS
        return None

    def _due(self) -> list[Missing]:
        wanted = self.config.training.rehearsal if self.config.training.anchor_weight else 0
        return rehearsals.due(self.home, wanted) if wanted else []

    async def _go_on(self, missing: Missing, prompts: Sequence[Anchor]) -> bool:
        """Whether there are a few more answers than before."""
        answered = await self._answers(missing, prompts)
        if not answered or not await anyio.to_thread.run_sync(rehearsals.add, self.home, missing, answered):
            return False
        if (there := missing.there + len(answered)) == self.config.training.rehearsal:
            adapters = [entry.adapter for entry in missing.stack]
            self.announcer.tell("rehearsed", persona=missing.persona, adapters=adapters, answers=there)
        return True

    async def _answers(self, missing: Missing, prompts: Sequence[Anchor]) -> list[Rehearsal]:
        """The next few, one after the other, up to where somebody else asks or the worker has not that stack."""
        found: list[Rehearsal] = []
        name = rehearsals.path(self.home, missing.persona, missing.stack).stem
        for number in range(missing.there, min(missing.there + FEW, self.config.training.rehearsal)):
            if (await self.worker.info()).in_flight:
                break
            prompt = prompts[number % len(prompts)].prompt
            answer = await self._answer(self._request(missing, number, prompt), missing)
            if answer is None:
                break
            found.append(Rehearsal(id=f"rehearsal-{name}-{number}", prompt=prompt, answer=answer))
        return found

    async def _answer(self, request: pb.GenerateRequest, missing: Missing) -> str | None:
        """None while the worker is busy or holds other weights than should serve; empty where it refuses the prompt."""
        try:
            reply = await self.worker.reply(request)
        except (Busy, NotFound):
            return None
        except InvalidInput:
            return ""
        made_by = {(each.id, each.digest) for each in reply.served.adapters}
        return reply.text if made_by == {(each.adapter, each.digest) for each in missing.stack} else None

    def _request(self, missing: Missing, number: int, text: str) -> pb.GenerateRequest:
        sampling = pb.Sampling(
            temperature=anchors.TEMPERATURE, seed=SEED + number, max_tokens=self.config.gate.anchor_tokens
        )
        return pb.GenerateRequest(
            stack=worker_client.to_proto(missing.stack), text=text, sampling=sampling, priority=pb.PRIORITY_BACKGROUND
        )

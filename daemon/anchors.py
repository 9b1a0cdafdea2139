"""Anchors: prompts and answers the base itself gives, sampled before anything is trained on it.

They stand for its old skills, for which nobody keeps data: a third of them judge every candidate, the others hold
the training to the base's distribution. Sampled, not greedy: what a candidate keeps on them follows what it keeps
on text the base was made from; docs/performance.md holds the two side by side. The base goes on by itself from where
its chat template puts a user's words (Magpie, arXiv:2406.08464).
"""

from __future__ import annotations

import hashlib
import json

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict

from daemon.events import Announcer
from daemon.worker_client import WorkerClient
from genome import files
from genome.config import Config
from genome.errors import Unavailable
from genome.layout import Home
from genome.v1 import inference_pb2 as pb

JUDGING_EVERY = 3
"""Every so-manieth anchor judges and is never trained on."""
AT_ONCE = 32
"""Requests the worker is asked at a time."""
SEED = 11
TEMPERATURE = 0.8


class Anchor(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    """Text taken as it is, special tokens and all."""
    answer: str


def read(home: Home, fingerprint: str) -> list[Anchor]:
    """Those of one base; none where none were sampled."""
    path = home.anchors(fingerprint)
    if not path.exists():
        return []
    return [Anchor.model_validate_json(line) for line in path.read_bytes().splitlines()]


def judging(home: Home, config: Config, fingerprint: str) -> list[Anchor]:
    """Of those that are wanted: those to judge by."""
    return read(home, fingerprint)[: config.gate.anchors : JUDGING_EVERY]


def training(home: Home, config: Config, fingerprint: str) -> list[Anchor]:
    """… and those to train beside."""
    wanted = read(home, fingerprint)[: config.gate.anchors]
    return [anchor for index, anchor in enumerate(wanted) if index % JUDGING_EVERY]


async def ensure(home: Home, config: Config, fingerprint: str, worker: WorkerClient, announcer: Announcer) -> None:
    """Samples the anchors of this base unless they are there. Raises Unavailable while the worker cannot be asked."""
    path = home.anchors(fingerprint)
    if config.gate.anchors == 0 or path.exists():
        return
    info = await worker.info()
    if info.base_fingerprint != fingerprint:
        raise Unavailable(f"the worker serves another base ({info.base}) than genome.toml names", "Restart the worker")
    found = await sample(config, worker, info)
    data = "".join(json.dumps(anchor.model_dump(), ensure_ascii=False) + "\n" for anchor in found)
    await anyio.to_thread.run_sync(files.write, path, data.encode())
    announcer.tell("anchors_sampled", anchors=len(found), path=str(path))


async def sample(config: Config, worker: WorkerClient, info: pb.GetServerInfoResponse) -> list[Anchor]:
    """Distinct prompts with their answers; empty ones are left out, so there can be fewer than asked for.

    Raises errors.GenomeError where one cannot be asked for.
    """
    tokens, limiter = config.gate.anchor_tokens, anyio.CapacityLimiter(AT_ONCE)
    found: dict[str, Anchor] = {}

    async def continue_text(text: str, seed: int, stop: list[str]) -> str:
        # The end of a user's words is often a special token, which must stay in the text to be seen.
        sampling = pb.Sampling(
            temperature=TEMPERATURE, seed=seed, max_tokens=tokens, stop=stop, keep_special_tokens=bool(stop)
        )
        request = pb.GenerateRequest(stack=pb.Stack(), text=text, sampling=sampling, priority=pb.PRIORITY_BACKGROUND)
        return (await worker.reply(request)).text

    async def one(index: int) -> None:
        async with limiter:
            asked = await continue_text(info.user_turn, SEED + 2 * index, [info.user_turn_end.strip() or "\n"])
            prompt = f"{info.user_turn}{asked}{info.user_turn_end}"
            if asked.strip() and prompt not in found:
                answer = await continue_text(prompt, SEED + 2 * index + 1, [])
                if answer.strip():
                    digest = hashlib.sha256(f"{prompt}\0{answer}".encode()).hexdigest()[:16]
                    found[prompt] = Anchor(id=f"anchor-{digest}", prompt=prompt, answer=answer)

    try:
        async with anyio.create_task_group() as group:
            for index in range(config.gate.anchors):
                group.start_soon(one, index)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed  # a worker that is away is told as one, not as a group of many
    return sorted(found.values(), key=lambda anchor: anchor.id)

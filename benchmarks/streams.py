"""A worker in a process of its own, and streams of replies from it while adapters are swapped."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from genome.layout import Home
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc

ROUTE = "bench/speed"
STREAMS = 8
TEXTS = [f"tell me about number {number}, and then about the one after it" for number in range(STREAMS)]


@dataclass
class Reply:
    """What a stream heard."""

    prompt: int
    adapters: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    failed: bool = False


@dataclass
class Client:
    """A worker process and adapters it may load."""

    stub: inference_pb2_grpc.InferenceServiceStub
    home: Home
    ids: list[str]

    async def load(self, adapter_id: str, replace: str = "") -> None:
        path = str(self.home.adapter(adapter_id))
        await self.stub.LoadAdapter(
            pb.LoadAdapterRequest(adapter_path=path, adapter_id=adapter_id, replace_id=replace, grace_seconds=0)
        )

    async def ask(self, prompt: int, tokens: int, fresh: bool = False) -> Reply:
        """One greedy reply to one of the prompts; ``fresh``: to one that no prefix cache can know."""
        reply = Reply(prompt)
        sampling = pb.Sampling(max_tokens=tokens, logprobs=0)
        text = f"{random.random()} {TEXTS[prompt]}" if fresh else TEXTS[prompt]
        request = pb.GenerateRequest(route=ROUTE, text=text, sampling=sampling)
        try:
            async for message in self.stub.Generate(request):
                now = time.perf_counter()
                reply.arrivals += [now] * len(message.token_ids)
                reply.tokens += message.token_ids
                reply.logprobs += [entry.logprob for entry in message.logprobs]
                reply.adapters += [adapter.id for adapter in message.served.adapters]
        except grpc.aio.AioRpcError:
            reply.failed = True
        return reply


@asynccontextmanager
async def worker(home: Home, base: Path, dtype: str, ids: list[str]) -> AsyncIterator[Client]:
    """A worker process that serves the first adapter."""
    home.config.write_text(f'base = "{base}"\n[worker]\nengine = "torch"\ndtype = "{dtype}"\n')
    command = [sys.executable, "-m", "inference_worker", str(home.root)]
    log = (home.root / "worker.log").open("wb")
    process = await asyncio.create_subprocess_exec(*command, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        async with grpc.aio.insecure_channel(f"unix:{home.worker_socket}") as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            await stub.GetServerInfo(pb.GetServerInfoRequest(), wait_for_ready=True, timeout=120)
            client = Client(stub, home, ids)
            await client.load(ids[0])
            yield client
    finally:
        process.terminate()
        await process.wait()
        log.close()


async def streams(client: Client, replies: int, tokens: int, swap_every: int = 0, swaps: int = 0) -> list[Reply]:
    """Streams that ask one reply after the other, while adapters are swapped: so many, or every so many tokens.

    Without a number of swaps every prompt is new: else only the side without swaps would find it in the prefix cache.
    """
    heard: list[Reply] = []
    done = asyncio.Event()

    async def stream(prompt: int) -> None:
        asked = 0
        while asked < replies or (swaps and not done.is_set()):
            heard.append(await client.ask(prompt, tokens, fresh=not swaps))
            asked += 1

    async def swap() -> None:
        current = 0
        for number in itertools.count():
            if (swaps and number >= swaps) or (not swaps and all(task.done() for task in tasks)):
                break
            await client.load(client.ids[(current + 1) % len(client.ids)], client.ids[current % len(client.ids)])
            current += 1
            await asyncio.sleep(0 if swaps else swap_every * pace)
        done.set()
        first = current % len(client.ids)
        client.ids = client.ids[first:] + client.ids[:first]

    started = time.perf_counter()
    await asyncio.gather(*(client.ask(prompt, tokens) for prompt in range(STREAMS)))
    pace = (time.perf_counter() - started) / tokens  # seconds a token
    tasks = [asyncio.create_task(stream(prompt)) for prompt in range(STREAMS)]
    if swaps or swap_every:
        await swap()
    await asyncio.gather(*tasks)
    return heard

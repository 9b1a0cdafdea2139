"""Promise: a worker that has answered thousands of requests holds no more than one that has answered some."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from worker_runs import RunningWorker

from genome.v1 import inference_pb2 as pb

REQUESTS, WARM_UP = 10_000, 2_000
STREAMS = 16
GROWTH_MB = 8


def resident_mb() -> float:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def answer(worker: RunningWorker, requests: int) -> None:
    """So many short requests from all streams together, each answered whole."""
    numbers = iter(range(requests))

    async def stream() -> None:
        for number in numbers:
            sampling = pb.Sampling(max_tokens=1 + number % 2, temperature=number % 3, seed=number, logprobs=number % 2)
            call = worker.stub.Generate(pb.GenerateRequest(text=f"question {number % 97}", sampling=sampling))
            messages = [message async for message in call]
            assert messages[-1].finish_reason != 0

    async with asyncio.TaskGroup() as streams:
        for _ in range(STREAMS):
            streams.create_task(stream())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
async def test_thousands_of_requests_leave_nothing_behind(worker: RunningWorker) -> None:
    """Memory and open files after the last request are those after the warm-up."""
    await answer(worker, WARM_UP)
    memory, files = resident_mb(), open_files()
    await answer(worker, REQUESTS - WARM_UP)
    assert open_files() <= files
    assert resident_mb() - memory < GROWTH_MB
    assert not worker.steps._rows and not worker.steps._waiting

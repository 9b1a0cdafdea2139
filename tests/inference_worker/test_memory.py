"""Promises of the memory budget for adapters: who leaves for a newcomer, who never does, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from safetensors.torch import load_file, save_file
from worker_runs import Foundry, RunningWorker

from genome.v1 import inference_pb2 as pb
from inference_worker.adapters import LoadOrder

WEIGHTS = "adapter_model.safetensors"
FIRST, SECOND, THIRD, FOURTH = (f"ann/code-v1.{minor}" for minor in range(4))


async def room_for(worker: RunningWorker, foundry: Foundry, count: int, *standby: str) -> Path:
    """Sets a budget of so many adapters, loads those, and returns an adapter's path."""
    path = foundry("one", seed=11)
    for adapter_id in standby:
        await worker.load(path, adapter_id, standby=True)
    info = await worker.adapter(standby[0])
    assert info is not None
    worker.adapters.budget_bytes = count * info.memory_bytes
    return path


async def held(worker: RunningWorker) -> list[str]:
    return [info.id for info in (await worker.stub.ListAdapters(pb.ListAdaptersRequest())).adapters]


async def refusal(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value.details() or ""


def stack(adapter_id: str) -> pb.Stack:
    return pb.Stack(entries=[pb.Stack.Entry(adapter_id=adapter_id)])


async def test_the_least_recently_used_leaves_first(worker: RunningWorker, foundry: Foundry) -> None:
    """Being loaded again and being asked count as use; what was used longest ago makes room, and no more than that."""
    path = await room_for(worker, foundry, 3, FIRST, SECOND, THIRD)
    await worker.load(path, FIRST, standby=True)
    await worker.ask("hello", tokens=1, stack=stack(SECOND))
    await worker.load(path, FOURTH, standby=True)
    assert await held(worker) == [FIRST, SECOND, FOURTH]
    await worker.load(path, THIRD, standby=True)
    assert await held(worker) == [SECOND, THIRD, FOURTH]


async def test_what_is_on_its_way_out_leaves_before_what_waits(worker: RunningWorker, foundry: Foundry) -> None:
    """A retiring adapter makes room before any on standby, though it was used last, and its timer ends with it."""
    path = await room_for(worker, foundry, 2, FIRST, SECOND)
    await worker.stub.UnloadAdapter(pb.UnloadAdapterRequest(adapter_id=SECOND))
    await worker.load(path, THIRD, standby=True)
    assert await held(worker) == [FIRST, THIRD]
    assert worker.clock.waiting == []
    await worker.load(path, SECOND, standby=True)
    assert await held(worker) == [SECOND, THIRD]


async def test_what_is_routed_or_in_use_never_leaves(worker: RunningWorker, foundry: Foundry) -> None:
    """A load that would need their room is refused with the numbers and a way out, and nobody leaves for it."""
    path = await room_for(worker, foundry, 3, FIRST, SECOND, THIRD)
    await worker.load(path, FIRST)
    worker.adapters.budget_bytes = worker.adapters.budget_bytes * 2 // 3
    sampling = pb.Sampling(max_tokens=400, temperature=100.0)
    call = worker.stub.Generate(pb.GenerateRequest(text="hello", stack=stack(SECOND), sampling=sampling))
    await call.read()
    before = await held(worker)
    details = await refusal(worker.load(path, FOURTH, standby=True))
    assert await held(worker) == before == [FIRST, SECOND, THIRD]
    assert "adapter_memory_mb" in details and f"{worker.adapters.budget_bytes / 2**20:.1f} MB" in details
    call.cancel()
    while (await worker.stub.GetServerInfo(pb.GetServerInfoRequest())).in_flight:
        pass
    await worker.load(path, FOURTH, standby=True)
    assert await held(worker) == [FIRST, FOURTH]


async def test_a_refused_load_evicts_nothing(worker: RunningWorker, foundry: Foundry, tmp_path: Path) -> None:
    """A file for another base, one that finds no place, and an outdated caller change nothing in a full memory."""
    path = await room_for(worker, foundry, 1, FIRST)
    foreign, homeless = tmp_path / "foreign", tmp_path / "homeless"
    shutil.copytree(path, foreign)
    (foreign / "manifest.json").write_text(json.dumps({"base_fingerprint": "0" * 64}))
    shutil.copytree(path, homeless)
    tensors = load_file(path / WEIGHTS)
    moved = {name.replace("layers.0", "layers.99"): tensor for name, tensor in tensors.items()}
    save_file(moved, homeless / WEIGHTS)
    orders: list[tuple[Path, dict[str, Any]]] = [
        (foreign, {}), (homeless, {}), (path, {"expected_generation": 9}), (path, {"expected_digest": "0" * 64}),
    ]  # fmt: skip
    for where, fields in orders:
        with pytest.raises(grpc.aio.AioRpcError):
            await worker.load(where, SECOND, standby=True, **fields)
        assert await held(worker) == [FIRST]


async def test_loads_that_may_not_evict_are_refused(worker: RunningWorker, foundry: Foundry) -> None:
    """Of what is served together, as on starting, nothing pushes out another before routes name it."""
    path = await room_for(worker, foundry, 1, FIRST)
    with pytest.raises(Exception, match="adapter_memory_mb"):
        await worker.adapters.load(LoadOrder(str(path), SECOND, standby=True, evict=False))
    assert await held(worker) == [FIRST]


async def test_without_a_budget_everything_stays(worker: RunningWorker, foundry: Foundry) -> None:
    """0 is no limit."""
    path = await room_for(worker, foundry, 0, FIRST)
    for adapter_id in (SECOND, THIRD, FOURTH):
        await worker.load(path, adapter_id, standby=True)
    assert await held(worker) == [FIRST, SECOND, THIRD, FOURTH]


async def test_the_size_foretold_is_the_size_taken(worker: RunningWorker, foundry: Foundry) -> None:
    """What the engine says an adapter will take is what it takes."""
    path = await room_for(worker, foundry, 0, FIRST)
    lora = worker.adapters._source.read(path)
    info = await worker.adapter(FIRST)
    assert info is not None
    assert worker.engine.size(lora) == info.memory_bytes > 0

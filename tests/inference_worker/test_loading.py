"""Promise 4: the switch is the last act of LoadAdapter, and a failed load changes nothing; UnloadAdapter's grace."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from safetensors.torch import load_file, save_file
from worker_runs import Foundry, RunningWorker

from genome import bases, lora
from genome.v1 import inference_pb2 as pb

OLD, NEW = "ann/code-v1.0", "ann/code-v1.1"
WEIGHTS = "adapter_model.safetensors"


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def everything(worker: RunningWorker) -> Any:
    """All a caller can see of adapters and routes."""
    return (
        await worker.stub.ListAdapters(pb.ListAdaptersRequest()),
        await worker.stub.ListRoutes(pb.ListRoutesRequest()),
    )


async def test_a_load_serves_the_route_its_id_names(worker: RunningWorker, foundry: Foundry) -> None:
    """After the answer the route exists, replies come from the adapter and name it."""
    path = foundry("one", seed=11)
    before, _ = await worker.ask("hello", route="ann/code")
    loaded = await worker.load(path, OLD)
    after, messages = await worker.ask("hello", route="ann/code")
    assert await worker.routes() == {"ann/code": [OLD]}
    assert after != before
    assert loaded.adapter.digest == lora.digests(path / WEIGHTS).sha256
    assert loaded.adapter.state == pb.AdapterInfo.ROUTED
    for message in (messages[0], messages[-1]):
        served = message.served
        assert (served.route, served.generation) == ("ann/code", loaded.generation)
        (adapter,) = served.adapters
        assert (adapter.id, adapter.version, adapter.digest) == (OLD, "1.0", loaded.adapter.digest)


async def test_a_standby_adapter_is_reached_by_an_explicit_stack_only(worker: RunningWorker, foundry: Foundry) -> None:
    """Standby changes no route; an explicit stack, with its own scales, is answered by it."""
    await worker.load(foundry("one", seed=11), OLD, standby=True)
    assert await worker.routes() == {}
    base, _ = await worker.ask("hello")
    stack = pb.Stack(entries=[pb.Stack.Entry(adapter_id=OLD)])
    silent = pb.Stack(entries=[pb.Stack.Entry(adapter_id=OLD, scale=0)])
    assert (await worker.ask("hello", stack=stack))[0] != base
    assert (await worker.ask("hello", stack=silent))[0] == base
    assert (await worker.ask("hello", stack=pb.Stack()))[0] == base


async def test_an_unset_scale_is_one_and_a_scale_counts(worker: RunningWorker, foundry: Foundry) -> None:
    """Unset must not read as zero; a given scale multiplies the adapter."""
    path = foundry("one", seed=11)
    whole = await worker.load(path, OLD)
    first, _ = await worker.ask("hello", route="ann/code")
    silent = await worker.load(path, OLD, scale=0.0)
    second, _ = await worker.ask("hello", route="ann/code")
    assert (whole.adapter.scale, silent.adapter.scale) == (1.0, 0.0)
    assert second == (await worker.ask("hello"))[0] != first


async def test_loading_again_is_the_same_as_loading_once(worker: RunningWorker, foundry: Foundry) -> None:
    """The same id and digest again changes nothing, says so, and concurrent loads of one id agree."""
    path = foundry("one", seed=11)
    answers = await asyncio.gather(*(worker.load(path, OLD) for _ in range(5)))
    assert sorted(answer.already_loaded for answer in answers) == [False] + [True] * 4
    assert {answer.generation for answer in answers} == {2}
    again = await worker.load(path, OLD, expected_digest=lora.digests(path / WEIGHTS).sha256)
    assert (again.already_loaded, again.generation) == (True, 2)


async def test_a_replacement_takes_over_every_route_and_the_old_one_retires(
    worker: RunningWorker, foundry: Foundry
) -> None:
    """One assignment moves all routes; the old adapter leaves memory when its grace is over, not before."""
    await worker.load(foundry("one", seed=11), OLD)
    route = pb.Route(name="ann", variants=[pb.Route.Variant(stack=pb.Stack(entries=[pb.Stack.Entry(adapter_id=OLD)]))])
    before = await worker.stub.SetRoute(pb.SetRouteRequest(routes=[route]))
    request = {"replace_id": OLD, "expected_generation": before.generation}
    swapped = await worker.load(foundry("two", seed=12), NEW, **request)
    assert await worker.routes() == {"ann": [NEW], "ann/code": [NEW]}
    assert swapped.generation == before.generation + 1
    old = await worker.adapter(OLD)
    assert old is not None
    assert old.state == pb.AdapterInfo.RETIRING
    worker.clock.run_out()
    assert await worker.adapter(OLD) is None
    del request["expected_generation"]
    assert (await worker.load(foundry("two", seed=12), NEW, **request)).already_loaded


async def test_going_back_within_the_grace_needs_no_loading(worker: RunningWorker, foundry: Foundry) -> None:
    """A retiring adapter that is routed again stays when its old grace period ends."""
    await worker.load(foundry("one", seed=11), OLD)
    await worker.load(foundry("two", seed=12), NEW, replace_id=OLD)
    back = await worker.load(foundry("one", seed=11), OLD, replace_id=NEW)
    assert back.already_loaded
    worker.clock.run_out()
    listed = await worker.stub.ListAdapters(pb.ListAdaptersRequest())
    assert [(info.id, info.state) for info in listed.adapters] == [(OLD, pb.AdapterInfo.ROUTED)]


async def test_an_adapter_in_use_is_not_unloaded(worker: RunningWorker, foundry: Foundry) -> None:
    """Unloading is refused while a route names it, and unknown ids are named as such."""
    await worker.load(foundry("one", seed=11), OLD)
    code, details = await refusal(worker.stub.UnloadAdapter(pb.UnloadAdapterRequest(adapter_id=OLD)))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "ann/code" in details
    code, _ = await refusal(worker.stub.UnloadAdapter(pb.UnloadAdapterRequest(adapter_id=NEW)))
    assert code == grpc.StatusCode.NOT_FOUND


async def test_an_outdated_caller_is_refused(worker: RunningWorker, foundry: Foundry) -> None:
    """A wrong expected generation aborts LoadAdapter and SetRoute, and nothing is loaded."""
    path = foundry("one", seed=11)
    before = await everything(worker)
    assert (await refusal(worker.load(path, OLD, expected_generation=9)))[0] == grpc.StatusCode.ABORTED
    call = worker.stub.SetRoute(pb.SetRouteRequest(routes=[pb.Route(name="ann")], expected_generation=9))
    assert (await refusal(call))[0] == grpc.StatusCode.ABORTED
    assert await everything(worker) == before


def _truncate(path: Path) -> None:
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[: len(data) // 2])


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        tensors = load_file(path / WEIGHTS)
        change(tensors)
        save_file(tensors, path / WEIGHTS)

    return edit


def _first(tensors: dict[str, Any]) -> str:
    return sorted(tensors)[0]


def _manifest(text: str) -> Callable[[Path], None]:
    return lambda path: (path / "manifest.json").write_text(text) and None


def _pickle(path: Path) -> None:
    (path / WEIGHTS).rename(path / "adapter_model.bin")


INVALID, WRONG, OUTSIDE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
)
DAMAGES: dict[str, tuple[Callable[[Path], Any], grpc.StatusCode, str]] = {
    "another base": (_manifest(json.dumps({"base_fingerprint": "0" * 64})), WRONG, "another base"),
    "broken manifest": (_manifest("{"), INVALID, "manifest.json"),
    "truncated": (_truncate, INVALID, "safetensors"),
    "not a number": (_edit(lambda held: held[_first(held)].view(-1)[0].fill_(float("nan"))), INVALID, "not finite"),
    "half a pair": (_edit(lambda held: held.pop(_first(held))), INVALID, "one of the two factors"),
    "extra tensor": (_edit(lambda held: held.update(extra=held[_first(held)].clone())), INVALID, "extra"),
    "unknown layer": (
        _edit(lambda held: held.update({key.replace("layers.0", "layers.99"): held.pop(key) for key in sorted(held)})),
        INVALID,
        "layers.99",
    ),
    "wrong shape": (
        _edit(lambda held: held.update({_first(held): held[_first(held)][:, :-1].clone()})),
        INVALID,
        "in the base",
    ),
    "pickles": (_pickle, INVALID, "no adapter_model.safetensors"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_bad_adapter_is_refused_and_nothing_changes(
    worker: RunningWorker, foundry: Foundry, tmp_path: Path, damage: str
) -> None:
    """Each kind of damage has its status and a sentence that names it; what served goes on serving."""
    spoil, expected, words = DAMAGES[damage]
    await worker.load(foundry("one", seed=11), OLD)
    before = await everything(worker)
    path = tmp_path / "spoiled"
    shutil.copytree(foundry("two", seed=12), path)
    spoil(path)
    code, details = await refusal(worker.load(path, NEW, replace_id=OLD))
    assert code == expected, details
    assert words in details
    assert await everything(worker) == before
    assert worker.clock.waiting == []


async def test_other_weights_than_expected_are_refused(worker: RunningWorker, foundry: Foundry) -> None:
    """A digest that differs from the expected one, or from what the id has in memory, loads nothing."""
    one, two = foundry("one", seed=11), foundry("two", seed=12)
    assert (await refusal(worker.load(one, OLD, expected_digest=lora.digests(two / WEIGHTS).sha256)))[0] == WRONG
    await worker.load(one, OLD)
    before = await everything(worker)
    code, details = await refusal(worker.load(two, OLD))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert "never changes" in details
    assert await everything(worker) == before


async def test_only_configured_directories_are_read(
    worker: RunningWorker, foundry: Foundry, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A path outside the roots, a link that leads out, and a way up are refused before anything is read."""
    outside = tmp_path_factory.mktemp("outside") / "adapter"
    shutil.copytree(foundry("one", seed=11), outside)
    (tmp_path / "link").symlink_to(outside)
    inside = tmp_path / "inside"
    shutil.copytree(outside, inside)
    (inside / WEIGHTS).unlink()
    (inside / WEIGHTS).symlink_to(outside / WEIGHTS)
    for path in (outside, tmp_path / "link", inside, tmp_path / ".." / ".." / "x", Path("/etc")):
        assert (await refusal(worker.load(path, OLD)))[0] == OUTSIDE, path
    assert (await refusal(worker.load(tmp_path / "nothing", OLD)))[0] == grpc.StatusCode.NOT_FOUND
    assert (await refusal(worker.stub.LoadAdapter(pb.LoadAdapterRequest(adapter_id=OLD))))[0] == INVALID
    assert await worker.adapter(OLD) is None


async def test_an_adapter_made_for_this_base_loads(
    worker: RunningWorker, foundry: Foundry, tmp_path: Path, base_path: Path
) -> None:
    """A manifest that names this base's fingerprint is no obstacle, and a relative path is one in the first root."""
    path = tmp_path / "whole"
    shutil.copytree(foundry("one", seed=11), path)
    (path / "manifest.json").write_text(json.dumps({"base_fingerprint": bases.fingerprint(base_path)}))
    assert (await worker.load(path, OLD)).adapter.id == OLD
    assert (await worker.load(Path("two"), NEW, standby=True)).adapter.path == str(foundry("two", seed=12))


@pytest.mark.parametrize(
    ("adapter_id", "fields", "code"),
    [
        ("no id", {}, INVALID),
        (OLD, {"scale": float("nan")}, INVALID),
        (OLD, {"replace_id": OLD}, INVALID),
        (OLD, {"replace_id": NEW, "standby": True}, INVALID),
        (OLD, {"replace_id": NEW}, grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    worker: RunningWorker, foundry: Foundry, adapter_id: str, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    """Bad ids, scales and replacements are refused before anything is read."""
    assert (await refusal(worker.load(foundry("one", seed=11), adapter_id, **fields)))[0] == code
    assert await worker.adapter(adapter_id) is None

"""Promises of the room beside the weights: places never overlap, and the adapters of open rows stay."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_runs import Foundry, Steps, generation

from genome import lora
from genome.errors import InvalidAdapter
from genome.lora import Factors, Lora
from genome.tensors import Tensor
from inference_worker.engine import Engine, Term
from inference_worker.engine_torch import rows, slots
from inference_worker.engine_torch.places import Place, Places
from inference_worker.engine_torch.slots import ROOM
from inference_worker.requests import Failed

SIZE = 64


@dataclass(eq=False)
class Ranked:
    """All a place is asked about."""

    rank: int


def overlap(places: list[Place]) -> bool:
    ordered = sorted(places, key=lambda place: place.start)
    return any(before.end > after.start for before, after in pairwise(ordered))


def filled(places: dict[Any, Place]) -> dict[Any, Place]:
    for place in places.values():
        place.filled.set()
    return places


adapters = st.lists(st.builds(Ranked, st.sampled_from([1, 8, 16, 24, 32])), min_size=1, max_size=8, unique_by=id)


@given(adapters, st.lists(st.tuples(st.sets(st.integers(0, 7), max_size=5), st.booleans()), max_size=20))
def test_every_batch_gets_places_that_do_not_overlap(known: list[Ranked], asked: list[tuple[set[int], bool]]) -> None:
    """Whatever came before, each adapter of a batch has a place of its width inside the room, apart from the others."""
    places = Places(SIZE)
    for numbers, pinned in asked:
        batch: list[Any] = [known[number] for number in sorted(numbers) if number < len(known)]
        if sum(adapter.rank for adapter in batch) > SIZE:
            with pytest.raises(ValueError, match="do not fit"):
                places.arrange(batch)
            continue
        found = filled(places.arrange(batch))
        assert list(found) == batch
        assert all(place.width == adapter.rank and place.end <= SIZE for adapter, place in found.items())
        assert not overlap(list(found.values()))
        assert not overlap(list(places._places.values()))
        if pinned:
            places.pin(batch)
        else:
            places.unpin([])


def test_a_newcomer_displaces_the_longest_unused_and_no_open_row() -> None:
    """With the room full, the adapter nobody asked for longest goes; one that an open row uses stays."""
    places = Places(SIZE)
    first, second, third, fourth, newcomer = (Ranked(16) for _ in range(5))
    for adapter in (first, second, third, fourth):
        filled(places.arrange([adapter]))  # type: ignore[list-item]
    places.pin([first])  # type: ignore[list-item]
    filled(places.arrange([third, fourth]))  # type: ignore[list-item]
    filled(places.arrange([newcomer, first]))  # type: ignore[list-item]
    assert second not in places._places
    assert all(adapter in places._places for adapter in (first, third, fourth, newcomer))
    assert not overlap(list(places._places.values()))


def test_what_is_left_alone_moves_to_the_beginning() -> None:
    """After a swap the new version does not compute the old one's directions for ever."""
    places = Places(SIZE)
    old, new = Ranked(16), Ranked(16)
    filled(places.arrange([old, new]))  # type: ignore[list-item]
    assert filled(places.arrange([new]))[new].start == 0  # type: ignore[index, list-item]


def test_an_adapter_that_is_gone_leaves_its_place() -> None:
    """Nothing needs to say so: its place is free when nobody holds it any more."""
    places = Places(SIZE)
    adapter = Ranked(SIZE)
    assert places.take(adapter) is not None  # type: ignore[arg-type]
    assert places.take(Ranked(1)) is None  # type: ignore[arg-type]
    del adapter
    gc.collect()
    assert places.take(Ranked(1)) is not None  # type: ignore[arg-type]


def test_more_adapters_than_fit_are_computed_in_parts(engine: Engine, foundry: Foundry, steps: Steps) -> None:
    """A batch whose adapters have no room beside each other says what each says alone."""
    rank = ROOM // 2 - 4
    terms = [Term(engine.load(lora.read(foundry(f"wide-{seed}", seed, 0.15, r=rank))), 1.0) for seed in range(4)]
    together = [generation((5, 9, 40, 33), 10, (term,)) for term in terms]
    for request in together:
        steps.submit(request)
    steps.step_until_done(*together)
    for request in together:
        alone = generation(request.prompt, 10, request.terms)
        steps.submit(alone)
        steps.step_until_done(alone)
        assert alone.written == request.written
    assert len({tuple(request.written) for request in together}) == 4


def test_an_adapter_wider_than_the_room_makes_it_grow(
    base_path: Any, foundry: Foundry, library_model: Callable[[], Any]
) -> None:
    """Its tokens are right, and so are those of the one that was there before."""
    from genome.config import Worker
    from inference_worker import engine as engines

    own = engines.load(base_path, Worker(engine="torch", device="cpu", dtype="float32"))
    steps = Steps(own)
    small = Term(own.load(lora.read(foundry("mix-one", seed=1, strength=0.1))), 1.0)
    before = generation((5, 9, 40, 33), 8, (small,))
    steps.submit(before)
    steps.step()
    large = Term(own.load(lora.read(foundry("huge", 3, 0.03, r=ROOM + 8))), 1.0)
    wide = generation((5, 9, 40, 33), 8, (large,))
    steps.submit(wide)
    steps.step_until_done(before, wide)
    fresh = Steps(own)
    again = [generation((5, 9, 40, 33), 8, terms) for terms in ((small,), (large,))]
    for request in again:
        fresh.submit(request)
        fresh.step_until_done(request)
    assert [before.written, wide.written] == [request.written for request in again]
    assert before.written != wide.written


def test_a_load_that_cannot_copy_yet_holds_up_nobody(
    engine: Engine, foundry: Foundry, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short of memory while it is laid beside the weights, the adapter is there all the same, and laid when needed."""
    path = foundry("mix-one", seed=1, strength=0.1)
    expected = generation((5, 9, 40, 33), 8, (Term(engine.load(lora.read(path)), 1.0),))
    steps.submit(expected)
    steps.step_until_done(expected)

    def out_of_memory(*_: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(slots, "copy_all", out_of_memory)
        term = Term(engine.load(lora.read(path)), 1.0)
    request = generation((5, 9, 40, 33), 8, (term,))
    steps.submit(request)
    steps.step_until_done(request)
    assert request.written == expected.written


def test_values_that_would_become_infinite_are_refused(engine: Engine, foundry: Foundry) -> None:
    """0 · inf is not a number, and would reach rows that do not use the adapter."""
    whole = lora.read(foundry("mix-one", seed=1, strength=0.1))
    path, factors = next(iter(whole.modules.items()))
    large = np.full(factors.b.shape, 1e300)
    damaged = Factors(factors.a, Tensor("F64", factors.b.shape, large.tobytes()), factors.scaling)
    with pytest.raises(InvalidAdapter, match=f"{path} has values too large for float32"):
        engine.load(Lora({path: damaged}, ""))


def test_short_of_memory_the_cache_of_rows_goes_on_with_what_it_had(
    engine: Engine, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt too long for memory fails alone; shorter ones before and after it are answered."""
    before = generation((5, 9, 40, 33), 4)
    steps.submit(before)
    steps.step_until_done(before)

    def out_of_memory(self: Any, old: Any, like: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(rows.RowLayer, "_grown", out_of_memory)
        # One token further than everything the tests of this module have made room for.
        columns = 1 + max(layer.keys.shape[2] for layer in engine._decoder._cache._layers)  # type: ignore[attr-defined]
        long = generation(tuple(5 + index % 300 for index in range(columns)), 4)
        steps.submit(long)
        steps.step_until_done(long)
        assert isinstance(steps.seen[-1][1], Failed)
        after = generation((5, 9, 40, 33), 4)
        steps.submit(after)
        steps.step_until_done(after)
    assert after.written == before.written

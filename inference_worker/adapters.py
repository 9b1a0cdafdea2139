"""Adapters in memory, the routes that name them, and the requests that use them.

Promised: a load that fails changes nothing; routes change in one assignment, after everything was checked; a lease
keeps what a request began with until it is given back; an unloaded or replaced adapter leaves memory after its last
lease and a grace period; over the memory budget those leave that nobody uses, or the newcomer is refused. Everything
here runs on the event loop, except the reading of files.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import structlog

from genome.adapters import AdapterId
from genome.errors import Conflict, InvalidInput, NotFound
from genome.lora import Lora
from inference_worker.engine import Engine, Term, Terms, Weights
from inference_worker.memory import Held, leaving
from inference_worker.routes import Entry, Stack, Table, Variants, check, check_scale, check_stack
from inference_worker.sources import Source

log = structlog.get_logger()

State = Literal["standby", "routed", "retiring"]


class AnotherDigest(Conflict):
    """An adapter id is in memory with other weights."""


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls back after so many seconds, on the event loop: `asyncio.AbstractEventLoop.call_later`, or a test's."""


@dataclass(frozen=True)
class Adapter:
    """One version of one domain's weights, in memory."""

    id: str
    digest: str
    scale: float
    rank: int
    path: str
    weights: Weights

    @property
    def version(self) -> str:
        return AdapterId.parse(self.id).version


@dataclass(frozen=True)
class LoadOrder:
    """What `Adapters.load` is asked."""

    path: str
    id: str
    scale: float | None = None
    """None: as it is loaded, or else 1."""
    replace_id: str = ""
    expected_digest: str = ""
    standby: bool = False
    evict: bool = True
    """Adapters that nobody uses may leave memory for it."""
    expected_generation: int | None = None
    grace_seconds: float | None = None


@dataclass(frozen=True)
class Loaded:
    """What a load came to."""

    adapter: Adapter
    generation: int
    already_loaded: bool
    load_ms: float
    swap_ms: float


@dataclass(frozen=True)
class Lease:
    """What one request is answered with, from its beginning to its end."""

    route: str
    """The route that answered, after fallback; empty for the base or an explicit stack."""
    generation: int
    adapters: tuple[tuple[Adapter, float], ...]
    """With the scale each is applied at."""

    @property
    def terms(self) -> Terms:
        return tuple(Term(adapter.weights, scale) for adapter, scale in self.adapters if scale != 0)


class Adapters:
    """All adapters in memory and the routing table over them."""

    def __init__(self, engine: Engine, source: Source, grace_seconds: float, later: Later, budget: int = 0) -> None:
        self.table = Table()
        self.budget_bytes = budget
        """Of all adapters together; 0: as much as there is."""
        self._engine = engine
        self._source = source
        self._grace_seconds = grace_seconds
        self._later = later
        self._loaded: dict[str, Adapter] = {}
        """The least recently loaded or leased first."""
        self._in_flight: Counter[str] = Counter()
        self._retiring: dict[str, float] = {}
        """Adapter id → its grace period in seconds."""
        self._timers: dict[str, Timer] = {}
        self._loading = asyncio.Lock()
        """One load at a time: two of one id must not both read it, and the disk is what they wait for."""

    def list(self) -> list[Adapter]:
        return [self._loaded[adapter_id] for adapter_id in sorted(self._loaded)]

    def state(self, adapter_id: str) -> State:
        if adapter_id in self._retiring:
            return "retiring"
        return "routed" if self.table.naming(adapter_id) else "standby"

    def in_flight(self, adapter_id: str) -> int:
        return self._in_flight[adapter_id]

    async def load(self, order: LoadOrder) -> Loaded:
        """Loads beside what serves, checks, and only then routes."""
        self._check(order)
        path = self._source.locate(order.path)
        started = time.perf_counter()
        async with self._loading:
            adapter = await self._take_in(order, path)
            loaded = time.perf_counter()
            # Nothing awaits from here on: checks and assignment see the same table.
            self._check(order)
            table = self._routed(order)
            present = self._loaded.get(order.id)
            self._revive(order.id)
            self._loaded[order.id] = adapter
            self._touch(order.id)
            self.table = table
            swapped = time.perf_counter()
            if order.replace_id in self._loaded:
                self._retire(order.replace_id, order.grace_seconds)
        load_ms, swap_ms = (loaded - started) * 1e3, (swapped - loaded) * 1e3
        return Loaded(adapter, table.generation, present is not None, load_ms, swap_ms)

    def unload(self, adapter_id: str, grace_seconds: float | None = None) -> int:
        """Lets an adapter leave memory after its last lease and the grace period; returns the leases there are."""
        if adapter_id not in self._loaded:
            raise NotFound(f"{adapter_id} is not loaded", f"Loaded are {', '.join(sorted(self._loaded)) or 'none'}")
        if names := self.table.naming(adapter_id):
            raise Conflict(f"{adapter_id} is used by the routes {', '.join(names)}", "Route something else there first")
        self._retire(adapter_id, grace_seconds)
        return self._in_flight[adapter_id]

    def set_routes(
        self, changed: Mapping[str, Variants], expected_generation: int | None = None
    ) -> tuple[Table, float]:
        """Sets every route given in one assignment; returns the new table, and the milliseconds it took.

        Adapters on their way out that are named again stay.
        """
        started = time.perf_counter()
        self.table.expect(expected_generation)
        for name, variants in changed.items():
            check(name, variants)
        table = self.table.with_routes(changed)
        for adapter_id in table.adapters():
            self._get(adapter_id)
        for adapter_id in table.adapters():
            self._revive(adapter_id)
        self.table = table
        return table, (time.perf_counter() - started) * 1e3

    @contextmanager
    def lease(self, target: str | Stack, session: str = "") -> Iterator[Lease]:
        """What answers now for a route's name or an explicit stack, kept in memory until the block ends."""
        table = self.table
        if isinstance(target, str):
            route, stack = table.resolve(target, session)
        else:
            check_stack(target)
            route, stack = "", target
        adapters = tuple(self._applied(entry) for entry in stack)
        for adapter, _ in adapters:
            self._in_flight[adapter.id] += 1
            self._touch(adapter.id)
            self._stop_timer(adapter.id)
        try:
            yield Lease(route, table.generation, adapters)
        finally:
            for adapter, _ in adapters:
                self._give_back(adapter.id)

    def _check(self, order: LoadOrder) -> None:
        AdapterId.parse(order.id)
        check_scale(order.scale)
        self.table.expect(order.expected_generation)
        if not order.replace_id:
            return
        if order.standby or order.replace_id == order.id:
            raise InvalidInput("replace_id with standby, or with the adapter's own id", "Give only one of them")
        if not self.table.naming(order.replace_id) and not self.table.naming(order.id):
            raise NotFound(f"no route uses {order.replace_id}, so nothing would be replaced", "Load without replace_id")

    async def _take_in(self, order: LoadOrder, path: Path) -> Adapter:
        present = self._loaded.get(order.id)
        if present is not None and order.expected_digest == present.digest:
            return _rescaled(present, order.scale)
        lora, size = await asyncio.to_thread(self._read, path, order.expected_digest)
        if present := self._loaded.get(order.id):
            if present.digest != lora.digest:
                raise AnotherDigest(
                    f"{order.id} is loaded with digest {present.digest[:12]}…, and {path} has {lora.digest[:12]}…",
                    "A version never changes: give the new weights a new id, or unload the old ones first",
                )
            return _rescaled(present, order.scale)
        self._check(order)
        idle = self._leaving(order, size)
        weights = await asyncio.to_thread(self._engine.load, lora)
        self._check(order)
        for adapter_id in idle:
            if not self._in_flight[adapter_id] and not self.table.naming(adapter_id) and adapter_id in self._loaded:
                log.info("an adapter leaves memory to make room", adapter=adapter_id, newcomer=order.id)
                self._remove(adapter_id)
        scale = 1.0 if order.scale is None else order.scale
        return Adapter(order.id, lora.digest, scale, lora.rank, str(path), weights)

    def _read(self, path: Path, digest: str) -> tuple[Lora, int]:
        """What lies at ``path``, checked in every way, and the memory it will take."""
        lora = self._source.read(path, digest)
        return lora, self._engine.size(lora)

    def _leaving(self, order: LoadOrder, size: int) -> list[str]:
        """Who has to leave memory for it. Raises Busy where that is not enough."""
        held = [
            Held(
                adapter.id,
                adapter.weights.memory_bytes,
                in_use=not order.evict or self._in_flight[adapter.id] > 0 or bool(self.table.naming(adapter.id)),
                retiring=adapter.id in self._retiring,
            )
            for adapter in self._loaded.values()
        ]
        return leaving(held, order.id, size, self.budget_bytes)

    def _routed(self, order: LoadOrder) -> Table:
        if order.replace_id:
            return self.table.replacing(order.replace_id, order.id)
        return self.table if order.standby else self.table.joined(order.id)

    def _get(self, adapter_id: str) -> Adapter:
        try:
            return self._loaded[adapter_id]
        except KeyError:
            raise NotFound(f"{adapter_id} is not loaded", "Load it first; on standby if it must not serve") from None

    def _applied(self, entry: Entry) -> tuple[Adapter, float]:
        adapter = self._get(entry.adapter_id)
        return adapter, adapter.scale if entry.scale is None else entry.scale

    def _touch(self, adapter_id: str) -> None:
        self._loaded[adapter_id] = self._loaded.pop(adapter_id)

    def _give_back(self, adapter_id: str) -> None:
        self._touch(adapter_id)
        self._in_flight[adapter_id] -= 1
        if not self._in_flight[adapter_id]:
            del self._in_flight[adapter_id]
            if adapter_id in self._retiring:
                self._start_timer(adapter_id)

    def _retire(self, adapter_id: str, grace_seconds: float | None) -> None:
        self._retiring[adapter_id] = self._grace_seconds if grace_seconds is None else max(0.0, grace_seconds)
        if not self._in_flight[adapter_id]:
            self._start_timer(adapter_id)

    def _revive(self, adapter_id: str) -> None:
        self._retiring.pop(adapter_id, None)
        self._stop_timer(adapter_id)

    def _start_timer(self, adapter_id: str) -> None:
        self._stop_timer(adapter_id)
        self._timers[adapter_id] = self._later(self._retiring[adapter_id], lambda: self._remove(adapter_id))

    def _stop_timer(self, adapter_id: str) -> None:
        if timer := self._timers.pop(adapter_id, None):
            timer.cancel()

    def _remove(self, adapter_id: str) -> None:
        self._revive(adapter_id)
        del self._loaded[adapter_id]
        self._engine.forget()


def _rescaled(adapter: Adapter, scale: float | None) -> Adapter:
    return adapter if scale is None else replace(adapter, scale=scale)

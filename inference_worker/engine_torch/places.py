"""Which adapter lies where in the room beside the weights. Decides only; `slots` copies the factors.

The loading threads take free places; the step thread arranges what a forward needs, and may move and evict.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from inference_worker.engine_torch.factors import LoraWeights


@dataclass(eq=False)
class Place:
    """Consecutive directions of the room."""

    start: int
    width: int
    filled: threading.Event = field(default_factory=threading.Event)
    loading: bool = False
    """A loading thread fills it; others are the step thread's to fill."""
    used: int = 0
    """When last, by the count of arrangements."""

    @property
    def end(self) -> int:
        return self.start + self.width


class Places:
    """The places in a room of ``size`` directions. An adapter that is gone from memory has none."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.RLock()
        self._places: WeakKeyDictionary[LoraWeights, Place] = WeakKeyDictionary()
        self._open: Counter[LoraWeights] = Counter()
        self._arrangements = 0

    def pin(self, adapters: Iterable[LoraWeights]) -> None:
        """Open rows use these: they are the last to be evicted."""
        with self.lock:
            self._open.update(adapters)

    def unpin(self, adapters: Iterable[LoraWeights]) -> bool:
        """Undoes one `pin`. True if nothing is pinned any more."""
        with self.lock:
            self._open.subtract(adapters)
            self._open = +self._open
            return not self._open

    def take(self, adapter: LoraWeights) -> Place | None:
        """A free place for a new adapter, to be filled by the caller; None if there is none."""
        with self.lock:
            place = self._put(adapter, self._places.values())
            if place is not None:
                place.loading = True
            return place

    def drop(self, adapter: LoraWeights) -> None:
        """Frees its place."""
        with self.lock:
            self._places.pop(adapter, None)

    def arrange(self, adapters: Sequence[LoraWeights]) -> dict[LoraWeights, Place]:
        """A place for each, close to the beginning. Those not filled yet are the caller's to fill.

        Raises ValueError if they are larger than the room together.
        """
        if (needed := sum(adapter.rank for adapter in adapters)) > self.size:
            raise ValueError(f"{needed} directions do not fit a room of {self.size}")
        with self.lock:
            self.settle()  # they hold no lock while they fill
            places = self._gather(adapters, needed)
            self._arrangements += 1
            for place in places.values():
                place.used = self._arrangements
            return places

    def settle(self) -> None:
        """Waits for loading threads."""
        for place in list(self._places.values()):
            if place.loading:
                place.filled.wait()

    def _gather(self, adapters: Sequence[LoraWeights], needed: int) -> dict[LoraWeights, Place]:
        held = {adapter: place for adapter in adapters if (place := self._places.get(adapter))}
        if max((place.end for place in held.values()), default=0) >= 2 * needed:  # most of what is computed is idle
            for adapter, place in held.items():
                if place.end > needed:
                    staying = [other for other in self._places if other in self._open or other in held]
                    obstacles = [self._places[other] for other in staying if other is not adapter]
                    self._put(adapter, obstacles, below=place.start)
        for adapter in adapters:
            while adapter not in self._places and self._put(adapter, self._places.values()) is None:
                idle = [other for other in self._places if other not in self._open and other not in adapters]
                if not idle:  # there is room, but in pieces: all over again
                    self._places.clear()
                    return {each: self._put(each, self._places.values()) for each in adapters}  # type: ignore[misc]
                del self._places[min(idle, key=lambda other: self._places[other].used)]
        return {adapter: self._places[adapter] for adapter in adapters}

    def _put(self, adapter: LoraWeights, obstacles: Iterable[Place], below: int | None = None) -> Place | None:
        """Puts an adapter into the first gap between ``obstacles``; what else lies there goes."""
        start = 0
        for place in sorted(obstacles, key=lambda place: place.start):
            if place.start - start >= adapter.rank:
                break
            start = max(start, place.end)
        if start + adapter.rank > self.size or (below is not None and start >= below):
            return None
        made = Place(start, adapter.rank)
        for other, place in list(self._places.items()):
            if place.start < made.end and made.start < place.end:
                del self._places[other]
        self._places[adapter] = made
        return made

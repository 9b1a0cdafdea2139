"""Key/value rows behind the library's cache protocol. The only file that knows it: it changes often.

Keys and values lie in [rows, heads, capacity + 1, size]; each forward works on some rows and writes each row's new
tokens at that row's own positions, padded on the right. The last column takes what padding writes and is never read.
All else that was ever written is finite, so a mask alone hides it (0 · NaN would not).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from genome.errors import InvalidConfig

SMALLEST_CAPACITY = 128


@dataclass(frozen=True)
class RowState:
    """A copy of a row's first keys and values, each [heads, tokens, size], by layer."""

    layers: tuple[tuple[mx.array, mx.array], ...]

    @property
    def memory_bytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class Step:
    """What the layers see in the forward at hand."""

    def __init__(self) -> None:
        self.rows: slice | mx.array = slice(0, 0)
        self.index = mx.zeros((0, 1), mx.int32)
        """[n, 1]: the rows, as numbers."""
        self.write = mx.zeros((0, 0), mx.int32)
        """[n, q]: column each new token is written to."""
        self.offset = mx.zeros((0,), mx.int32)
        """[n]: position of each row's first new token."""
        self.width = 0
        """New tokens of the longest row."""
        self.length = 0
        """Columns that are read."""
        self.row_capacity = 0
        self.capacity = 0
        self.uniform = False
        """All rows have the same positions."""
        self._masks: dict[int | None, mx.array] = {}

    def begin(self, rows: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        self.width, self.length = max(counts), max(ends)
        self.row_capacity = max(self.row_capacity, _power_of_two(max(rows) + 1))
        if self.capacity < self.length:
            self.capacity = max(_power_of_two(self.length), SMALLEST_CAPACITY)
        write = [
            [*range(start, end), *[self.capacity] * (self.width - count)]
            for start, end, count in zip(starts, ends, counts, strict=True)
        ]
        self.write, self.offset = mx.array(write), mx.array(list(starts))
        self.index = mx.array(list(rows))[:, None]
        contiguous = list(rows) == list(range(rows[0], rows[0] + len(rows)))
        self.rows = slice(rows[0], rows[0] + len(rows)) if contiguous else self.index[:, 0]
        self.uniform = min(starts) == max(starts) and min(counts) == max(counts)
        self._masks = {}

    def put(self, held: mx.array, new: mx.array) -> None:
        """Writes ``new`` [n, heads, q, size] to its places."""
        if self.uniform and isinstance(self.rows, slice):
            held[self.rows, :, self.length - self.width : self.length] = new
        else:
            held[self.index, :, self.write] = new.transpose(0, 2, 1, 3)

    def mask(self, window: int | None, as_array: bool) -> mx.array | str | None:
        """Which columns each new token sees: bool [n, 1, q, columns], or the library's word for a simple case."""
        if self.uniform and (window is None or self.length <= window):
            if self.width == 1:
                return None
            if not as_array:
                return "causal"
        if window not in self._masks:
            query = (self.offset[:, None] + mx.arange(self.width))[:, None, :, None]
            key = mx.arange(self.length)
            visible = key <= query
            self._masks[window] = visible if window is None else visible & (query - key < window)
        return self._masks[window]


class RowLayer:
    """One layer's keys and values, in the library's cache protocol."""

    def __init__(self, step: Step, window: int | None) -> None:
        self._step, self._window = step, window
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    @property
    def offset(self) -> mx.array:
        return self._step.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        step = self._step
        self.reserve(keys, values)
        step.put(self.keys, keys)
        step.put(self.values, values)
        return self._read(self.keys), self._read(self.values)

    def make_mask(
        self, count: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        # The library's own cache keeps no more than a window where it has one, whether a mask is asked for it or not.
        windows = [size for size in (window_size, self._window) if size]
        return self._step.mask(min(windows, default=None), return_array)

    def reserve(self, keys: mx.array, values: mx.array) -> None:
        """Makes room for the step at hand. ``keys``, ``values`` [..., heads, tokens, size] say of what."""
        rows, columns = self._step.row_capacity, self._step.capacity + 1
        if self.keys is None or self.keys.shape[0] < rows or self.keys.shape[2] < columns:
            self.keys, self.values = self._grown(self.keys, keys), self._grown(self.values, values)

    def _grown(self, old: mx.array | None, like: mx.array) -> mx.array:
        heads, _, size = like.shape[-3:]
        new = mx.zeros((self._step.row_capacity, heads, self._step.capacity + 1, size), like.dtype)
        if old is not None:
            rows, columns = old.shape[0], old.shape[2] - 1
            new[:rows, :, :columns] = old[:, :, :columns]
        return new

    def _read(self, held: mx.array) -> mx.array:
        read = held[:, :, : self._step.length]
        return read[self._step.rows]


class RowCache:
    """Keys and values of all rows, all layers. Grows by doubling."""

    def __init__(self, windows: Sequence[int | None]) -> None:
        """``windows``: how many tokens each layer sees; None: all."""
        self._windows = windows
        self._step = Step()
        self.layers = [RowLayer(self._step, window) for window in windows]

    def prepare(self, rows: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        """Makes the next forward work on ``rows``, each with so many new tokens from its start on."""
        self._step.begin(rows, starts, counts)

    def fork(self, rows: Sequence[int], length: int, more: int) -> RowCache:
        """New rows that begin with the first ``length`` columns of these rows, with room for ``more``."""
        fork = RowCache(self._windows)
        fork._step.row_capacity, fork._step.capacity = len(rows), length + more
        index = mx.array(list(rows))
        room = [(0, 0), (0, 0), (0, more + 1), (0, 0)]
        for old, new in zip(self.layers, fork.layers, strict=True):
            new.keys, new.values = (mx.pad(held[:, :, :length][index], room) for held in (old.keys, old.values))
        return fork

    def move(self, source: int, target: int, length: int) -> None:
        """Copies a row's first ``length`` columns over another row's."""
        self.restore(target, self.snapshot(source, length), length)

    def snapshot(self, row: int, length: int) -> RowState:
        # A copy, evaluated: a view would keep the whole cache from being written in place.
        layers = [
            tuple(mx.contiguous(held[row, :, :length]) for held in (layer.keys, layer.values)) for layer in self.layers
        ]
        mx.eval(layers)
        return RowState(tuple(layers))  # type: ignore[arg-type]

    def restore(self, row: int, state: RowState, length: int) -> None:
        self._step.begin([row], [0], [length])
        for layer, (keys, values) in zip(self.layers, state.layers, strict=True):
            layer.reserve(keys, values)
            layer.keys[row, :, :length] = keys[:, :length]
            layer.values[row, :, :length] = values[:, :length]

    def clear(self, row: int, start: int = 0) -> None:
        """Makes a row finite again from a column on."""
        for layer in self.layers:
            for held in (layer.keys, layer.values):
                if held is not None and row < held.shape[0]:
                    held[row, :, start:] = 0


class LibraryCache:
    """One sequence's state as the library keeps it, whatever that is."""

    def __init__(self, model: Any) -> None:
        self.layers = make_prompt_cache(model)

    def copy(self) -> LibraryCache:
        return copy.deepcopy(self)

    def evaluate(self, logits: mx.array) -> None:
        """A recurrent state is not among what the logits need, so it is named."""
        mx.eval(logits, [layer.state for layer in self.layers])


def windows(model: Any) -> list[int | None]:
    """How many tokens each layer sees; None: all. Raises InvalidConfig where a layer keeps anything but these."""
    found: list[int | None] = []
    for cache in make_prompt_cache(model):
        if type(cache) is KVCache:
            found.append(None)
        elif type(cache) is RotatingKVCache and cache.keep == 0:
            found.append(cache.max_size)
        else:
            raise InvalidConfig(f"a layer keeps a state ({type(cache).__name__}) that is no list of keys")
    return found


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()

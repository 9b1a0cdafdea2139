"""Key/value rows behind the library's cache classes. The only file that knows them: they change often.

Keys and values lie in [rows, heads, capacity + 1, size]; each forward works on some rows and writes each row's new
tokens at that row's own positions. The last column takes what padding writes and is never read. All else that was
ever written is finite, so a mask alone hides it (0 · NaN would not).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

SMALLEST_CAPACITY = 128


class Window:
    """What the layers see in the forward at hand."""

    def __init__(self) -> None:
        self.rows: slice | torch.Tensor = slice(0, 0)
        self.index = torch.zeros(0, 1, dtype=torch.long)
        """[n, 1]: the rows, as numbers."""
        self.write = torch.zeros(0, 0, dtype=torch.long)
        """[n, q]: column each new token is written to."""
        self.together: slice | None = None
        """The columns of all rows, where they are the same: copied at once, not token by token."""
        self.length = 0
        """Columns that are read."""
        self.row_capacity = 0
        self.capacity = 0


class RowLayer(CacheLayerMixin):
    """One layer's keys and values."""

    is_sliding = False

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (self._grown(None, new) for new in (key_states, value_states))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        window = self._window
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if window.together is not None:
            self.keys[window.rows, :, window.together] = key_states
            self.values[window.rows, :, window.together] = value_states
        else:
            self.keys[window.index, :, window.write] = key_states.transpose(1, 2)
            self.values[window.index, :, window.write] = value_states.transpose(1, 2)
        return self.keys[window.rows, :, : window.length], self.values[window.rows, :, : window.length]

    def grow(self) -> None:
        """Makes room for as many rows and columns as the window has."""
        if self.keys.shape[0] < self._window.row_capacity or self.keys.shape[2] <= self._window.capacity:
            self.keys, self.values = self._grown(self.keys, self.keys), self._grown(self.values, self.values)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._window.length, 0

    def get_seq_length(self) -> int:
        return self._window.length - self._window.write.shape[1]

    def get_max_length(self) -> int:
        return -1

    def _grown(self, old: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = like.shape
        new = like.new_zeros(self._window.row_capacity, heads, self._window.capacity + 1, size)
        if old is not None:
            rows, columns = old.shape[0], old.shape[2] - 1
            new[:rows, :, :columns] = old[:, :, :columns]
        return new


class RowCache:
    """Keys and values of all rows, all layers. Grows by doubling."""

    def __init__(self, layers: int, device: torch.device) -> None:
        self._window = Window()
        self._device = device
        self._layers = [RowLayer(self._window) for _ in range(layers)]
        self.library_cache = Cache(layers=list(self._layers))

    def prepare(self, rows: list[int], starts: list[int], counts: list[int]) -> torch.Tensor:
        """Makes the next forward work on ``rows``, each with so many new tokens from its start on, padded on the left.

        Returns the tokens' positions [n, q], 0 for padding.
        """
        window = self._window
        window.length = max(start + count for start, count in zip(starts, counts, strict=True))
        self._reserve(max(rows) + 1, window.length)
        width = max(counts)
        spans = [(width - count, range(start, start + count)) for start, count in zip(starts, counts, strict=True)]
        write = [[window.capacity] * padding + list(span) for padding, span in spans]
        window.write = torch.tensor(write, device=self._device)
        window.index = torch.tensor(rows, device=self._device).unsqueeze(1)
        contiguous = rows == list(range(rows[0], rows[0] + len(rows)))
        window.rows = slice(rows[0], rows[0] + len(rows)) if contiguous else window.index[:, 0]
        alike = contiguous and len(set(starts)) == 1 and min(counts) == width
        window.together = slice(starts[0], starts[0] + width) if alike else None
        return window.write.masked_fill(window.write == window.capacity, 0) if min(counts) < width else window.write

    def copied(self, row: int, length: int) -> list[torch.Tensor]:
        """A row's first ``length`` columns, keys and values of each layer, [heads, length, size]."""
        return [held[row, :, :length].clone() for layer in self._initialized() for held in (layer.keys, layer.values)]

    def paste(self, row: int, copied: list[torch.Tensor], length: int) -> None:
        """Gives a row the first ``length`` columns of what was `copied`."""
        self._reserve(row + 1, length)
        targets = [held for layer in self._initialized() for held in (layer.keys, layer.values)]
        for target, source in zip(targets, copied, strict=True):
            target[row, :, :length] = source[:, :length]

    def _reserve(self, rows: int, columns: int) -> None:
        """Makes room in every layer, or in none that counts: where memory is short, all goes on with what there was."""
        window = self._window
        before = window.row_capacity, window.capacity
        window.row_capacity = max(window.row_capacity, _power_of_two(rows))
        window.capacity = max(window.capacity, _power_of_two(columns), SMALLEST_CAPACITY)
        try:
            for layer in self._initialized():
                layer.grow()
        except BaseException:
            window.row_capacity, window.capacity = before
            raise

    def move(self, source: int, target: int, length: int) -> None:
        """Copies a row's first ``length`` columns over another row's."""
        for layer in self._initialized():
            for held in (layer.keys, layer.values):
                held[target, :, :length] = held[source, :, :length]

    def clear(self, row: int) -> None:
        """Makes a row finite again."""
        for layer in self._initialized():
            for held in (layer.keys, layer.values):
                if row < held.shape[0]:
                    held[row] = 0

    @property
    def in_step(self) -> bool:
        """Whether the rows of the prepared forward have one length, before and after it."""
        return self._window.together is not None

    @property
    def length(self) -> int:
        """Columns the prepared forward reads."""
        return self._window.length

    def _initialized(self) -> list[RowLayer]:
        return [layer for layer in self._layers if layer.is_initialized]


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()

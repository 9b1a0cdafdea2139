"""Rows of a cache, for engines that batch: those in use are always the first, so that all of them are one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inference_worker.engine import Terms

Work = Sequence[tuple["BatchedRow", Sequence[int]]]
"""Rows and the tokens each of them takes in."""


class Cache(Protocol):
    """Keys and values by row and column."""

    def move(self, source: int, target: int, length: int) -> None:
        """Copies a row's first ``length`` columns over another row's."""
        ...

    def clear(self, row: int) -> None:
        """Makes a row finite again."""
        ...


@dataclass(eq=False)
class BatchedRow:
    """A sequence in progress: a row of the cache."""

    terms: Terms
    index: int
    length: int = 0
    damaged: bool = False
    """What it holds may not be finite."""


class Rows:
    """The rows in use."""

    def __init__(self) -> None:
        self._rows: list[BatchedRow] = []

    def __len__(self) -> int:
        return len(self._rows)

    def open(self, terms: Terms) -> BatchedRow:
        """A new, empty row, behind the others."""
        row = BatchedRow(terms, len(self._rows))
        self._rows.append(row)
        return row

    def close(self, row: BatchedRow, cache: Cache) -> None:
        """Frees a row; the last one moves into its place. What is not finite stays nowhere."""
        if row.damaged:
            cache.clear(row.index)
        last = self._rows.pop()
        if last is not row:
            if last.length:
                cache.move(last.index, row.index, last.length)
            if last.damaged:
                cache.clear(last.index)
            last.index = row.index
            self._rows[row.index] = last


def in_order(work: Work) -> tuple[list[BatchedRow], list[Sequence[int]], list[int] | None]:
    """Rows as they lie in the cache and their tokens; and where each of ``work`` is found then, None: where it was."""
    order = sorted(range(len(work)), key=lambda item: work[item][0].index)
    rows, tokens = [work[item][0] for item in order], [work[item][1] for item in order]
    if order == list(range(len(work))):
        return rows, tokens, None
    return rows, tokens, sorted(range(len(work)), key=order.__getitem__)

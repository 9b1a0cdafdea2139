"""Curves in a terminal, of block characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"
FULL = len(BLOCKS) - 1


def curve(values: Sequence[float], width: int, height: int) -> list[str]:
    """``values`` from left to right in ``height`` lines of at most ``width`` columns, with the highest and the lowest
    at the left. Where there are more values than columns, a column is the mean of its share.
    """
    if not values:
        return []
    labels = [f"{max(values):.3f}", f"{min(values):.3f}"]
    margin = max(map(len, labels))
    columns = _means(values, max(1, width - margin - 2))
    low, high = min(columns), max(columns)
    span = high - low or 1.0
    levels = [1 + round((value - low) / span * (height * FULL - 1)) for value in columns]
    rows = []
    for row in reversed(range(height)):
        label = labels[0] if row == height - 1 else labels[1] if row == 0 else ""  # of one line: the highest
        cells = "".join(BLOCKS[min(max(level - row * FULL, 0), FULL)] for level in levels)
        rows.append(f"{label:>{margin}} ┤{cells}".rstrip())
    return rows


def _means(values: Sequence[float], columns: int) -> list[float]:
    if len(values) <= columns:
        return list(values)
    edges = [len(values) * column // columns for column in range(columns + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]

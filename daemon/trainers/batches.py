"""Examples as padded arrays, for trainers that hand them to a library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from daemon.trainers import passes
from daemon.trainers.examples import Tokens

MAX_CELLS = passes.tokens()
"""Rows times columns of one forward pass. A step with more is done in several, whose gradients add up."""


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right, where a causal model cannot look: neither mask nor positions are needed.

    ``tokens`` [n, t] int64. ``rows``, ``columns`` [k] int64: the places whose logits predict a response token;
    ``targets`` [k] int64: that token; ``weights`` [k] float32: its example's weight, over the whole step's, so that a
    sum over all batches of a step is a weighted mean.
    """

    tokens: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def batches(examples: Sequence[Tokens], max_cells: int = MAX_CELLS) -> Iterator[Batch]:
    """One step's examples, longest last, in as few batches as ``max_cells`` allows (a row is never split)."""
    total = sum(example.weight * len(example.response) for example in examples)
    if not total > 0:
        return
    group: list[Tokens] = []
    for example in sorted(examples, key=len):
        if group and (len(group) + 1) * len(example) > max_cells:
            yield _batch(group, total)
            group = []
        group.append(example)
    yield _batch(group, total)


def _batch(examples: Sequence[Tokens], total: float) -> Batch:
    # The last token of a row predicts nothing that is learned.
    tokens = np.zeros((len(examples), max(map(len, examples)) - 1), dtype=np.int64)
    for row, example in enumerate(examples):
        line = example.prompt + example.response[:-1]
        tokens[row, : len(line)] = line
    counts = [len(example.response) for example in examples]
    starts = [len(example.prompt) - 1 for example in examples]
    return Batch(
        tokens,
        rows=np.repeat(np.arange(len(examples)), counts),
        columns=np.concatenate([start + np.arange(count) for start, count in zip(starts, counts, strict=True)]),
        targets=np.concatenate([np.array(example.response, dtype=np.int64) for example in examples]),
        weights=np.repeat(np.array([e.weight / total for e in examples], dtype=np.float32), counts),
    )

"""Examples as arrays: what one forward and backward pass sees, for every library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from daemon.trainers.examples import Distributions, Tokens
from genome.memory import WHOLE_PASS


@dataclass(frozen=True)
class Batch:
    """Rows laid end to end, without padding. A row is a prompt and a response, but for the last token.

    ``tokens`` [t] int64 and ``lengths`` [n] int64 of the rows in it. ``places`` [k] int64: where in ``tokens`` a
    response token is predicted; ``rows`` [k] int64: of which row; ``targets`` [k] int64: that token; ``weights`` [k]
    float32: of its cross-entropy, over the whole step's, so that a sum over all batches of a step is a weighted mean.
    ``pairs`` [p, 2] int64: rows with the right and the wrong answer to one question; ``references`` [p, 2] float32:
    log probability of both when the run began; ``pair_weights`` [p] float32, which add up to one over a step.
    ``teacher``: what the teacher gives at every place, for anchors. ``examples``: whose rows they are, in order.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    places: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    pairs: np.ndarray
    references: np.ndarray
    pair_weights: np.ndarray
    teacher: Distributions | None
    examples: tuple[Tokens, ...]

    @cached_property
    def positions(self) -> np.ndarray:
        """Of each token in its row, [t] int64."""
        return np.arange(len(self.tokens)) - np.repeat(self._starts, self.lengths)

    @cached_property
    def padded(self) -> np.ndarray:
        """The tokens as rows of one length, [n, m] int64, with zeros on the right, where a causal model cannot look."""
        tokens = np.zeros((len(self.lengths), self.lengths.max()), dtype=np.int64)
        tokens[np.repeat(np.arange(len(self.lengths)), self.lengths), self.positions] = self.tokens
        return tokens

    @cached_property
    def columns(self) -> np.ndarray:
        """Column of each of ``places`` in ``padded``, [k] int64."""
        return self.positions[self.places]

    @property
    def _starts(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths


@dataclass(frozen=True)
class _Row:
    prompt: list[int]
    response: list[int]
    weight: float
    """Of each response token."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response) - 1


def batches(examples: Sequence[Tokens], pass_tokens: int = WHOLE_PASS, padded: bool = False) -> Iterator[Batch]:
    """One step's examples, longest last, in as few batches as ``pass_tokens`` allows; an example is never split.

    ``padded``: what is padded counts as well.
    """
    total = sum(example.weight * len(example.response) for example in examples if example.learned)
    paired = sum(example.weight for example in examples if example.wrong)
    if not (total > 0 or paired > 0):
        return
    group: list[Tokens] = []
    for example in sorted(examples, key=len):
        if group and _size([*group, example], padded) > pass_tokens:
            yield _batch(group, total, paired)
            group = []
        group.append(example)
    yield _batch(group, total, paired)


def _size(examples: Sequence[Tokens], padded: bool) -> int:
    lengths = [len(row) for example in examples for row in _rows(example, 1.0)]
    return len(lengths) * max(lengths) if padded else sum(lengths)


def _rows(example: Tokens, total: float) -> list[_Row]:
    right = _Row(example.prompt, example.response, example.weight / total if example.learned and total else 0.0)
    return [right, _Row(example.prompt, example.wrong.response, 0.0)] if example.wrong else [right]


def _batch(examples: Sequence[Tokens], total: float, paired: float) -> Batch:
    made, pairs = [], []
    for example in examples:
        if example.wrong:
            pairs.append((len(made), len(made) + 1))
        made += _rows(example, total)
    lengths, counts = _integers(map(len, made)), _integers(len(row.response) for row in made)
    firsts = np.cumsum(lengths) - counts  # of each row, the place that predicts its response's first token
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    preferred = [example for example in examples if example.wrong]
    taught = [example.teacher for example in examples if example.teacher is not None]
    return Batch(
        tokens=np.concatenate([np.array(row.prompt + row.response[:-1], dtype=np.int64) for row in made]),
        lengths=lengths,
        places=np.repeat(firsts, counts) + within,
        rows=np.repeat(np.arange(len(made)), counts),
        targets=np.concatenate([np.array(row.response, dtype=np.int64) for row in made]),
        weights=np.repeat(np.array([row.weight for row in made], dtype=np.float32), counts),
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        references=np.array([example.wrong.reference for example in preferred], dtype=np.float32).reshape(-1, 2),
        pair_weights=np.array([example.weight / paired for example in preferred], dtype=np.float32),
        teacher=Distributions.joined(taught) if taught else None,
        examples=tuple(examples),
    )


def _integers(values: Iterator[int]) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64)

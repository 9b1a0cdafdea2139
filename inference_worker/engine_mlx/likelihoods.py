"""From logits to the likelihood of continuations."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from inference_worker.engine import Likelihood


def likelihoods(logits: mx.array, targets: Sequence[Sequence[int]]) -> list[Likelihood]:
    """Of each row's targets, at most q, where logits [n, q, vocabulary] say what comes at each place."""
    ids = mx.array(padded(targets, logits.shape[1]))[..., None]
    logprobs = mx.take_along_axis(logits, ids, axis=2)[..., 0] - mx.logsumexp(logits, axis=2)
    greedy = mx.argmax(logits, axis=2) == ids[..., 0]
    mx.eval(logprobs, greedy)
    rows = zip(logprobs.tolist(), greedy.tolist(), targets, strict=True)
    return [Likelihood(tuple(values[: len(row)]), tuple(best[: len(row)])) for values, best, row in rows]


def joined(parts: Sequence[Likelihood]) -> Likelihood:
    """One continuation's, from those of its parts."""
    return Likelihood(
        tuple(value for part in parts for value in part.logprobs), tuple(best for part in parts for best in part.greedy)
    )


def padded(rows: Sequence[Sequence[int]], width: int | None = None) -> list[list[int]]:
    """Rows of one length, filled up on the right."""
    width = max(map(len, rows)) if width is None else width
    return [[*row, *[0] * (width - len(row))] for row in rows]

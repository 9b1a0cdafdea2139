"""Questions packed for one forward: a prompt once, and behind it every continuation as a branch of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference_worker.engine import Likelihood, Question

PROMPT, PADDING = 0, -1
"""Branch numbers; continuations are 1, 2, …"""


@dataclass(frozen=True)
class Packed:
    """One question as one row of tokens."""

    ids: list[int]
    positions: list[int]
    """A continuation's go on from the prompt's end."""
    branches: list[int]
    prompt: int
    """Tokens of the prompt."""
    lengths: list[int]
    """Tokens of each continuation."""


def pack(question: Question) -> Packed:
    ids, prompt = list(question.prompt), len(question.prompt)
    positions, branches = list(range(prompt)), [PROMPT] * prompt
    for number, continuation in enumerate(question.continuations, start=1):
        ids += continuation
        positions += range(prompt, prompt + len(continuation))
        branches += [number] * len(continuation)
    return Packed(ids, positions, branches, prompt, [len(tokens) for tokens in question.continuations])


def padded(rows: Sequence[Sequence[int]], empty: int = 0) -> list[list[int]]:
    """Rows of one length, filled up on the left, so that every row's last token stands in the last column."""
    width = max(map(len, rows))
    return [[empty] * (width - len(row)) + list(row) for row in rows]


def likelihoods(row: Packed, logits: torch.Tensor) -> list[Likelihood]:
    """Each continuation's, from the logits [kept, vocabulary] of the row's last tokens."""
    end = len(row.ids)
    first = len(logits) - end  # the row's token t stands in logits[first + t]
    sources, targets, offset = [], [], row.prompt
    for length in row.lengths:
        # A continuation's first token follows the prompt, the others the one before.
        sources += [row.prompt - 1, *range(offset, offset + length - 1)][:length]
        targets += row.ids[offset : offset + length]
        offset += length
    if not targets:
        return []
    chosen = logits[[first + source for source in sources]].float()
    target = torch.tensor(targets, device=logits.device)
    scores = chosen.gather(1, target.unsqueeze(1)).squeeze(1) - chosen.logsumexp(1)
    greedy = (chosen.argmax(1) == target).tolist()
    answers, offset, values = [], 0, scores.tolist()
    for length in row.lengths:
        part = slice(offset, offset + length)
        answers.append(Likelihood(tuple(values[part]), tuple(greedy[part])))
        offset += length
    return answers

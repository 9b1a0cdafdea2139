"""Rows of different lengths and adapters in one forward, over unmodified modules of the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from inference_worker.engine import Likelihood, Question, Terms
from inference_worker.engine_mlx.likelihoods import joined, likelihoods, padded
from inference_worker.engine_mlx.output import Output
from inference_worker.engine_mlx.rows import RowCache, RowState
from inference_worker.engine_mlx.slots import Slots
from inference_worker.rows import BatchedRow, Rows, Work, in_order

SCORED_COLUMNS = 4096
"""Keys of prompts and continuations together that one scoring forward holds, unless one continuation needs more."""
SCORED_LOGITS = 1 << 26
"""Likewise logits: 256 MiB."""
SCORED_PADDING = 128
"""Tokens of padding that one scoring forward computes at most: with more, two forwards take less time."""


@dataclass(frozen=True)
class Branch:
    """A continuation of one of several prompts."""

    owner: int
    """Number of the prompt."""
    tokens: tuple[int, ...]


class BatchedDecoder:
    """Computes many rows at once. Rows in use are always the first of the cache, so that all of them are one view."""

    def __init__(self, output: Output, slots: Slots, windows: Sequence[int | None]) -> None:
        """``windows``: how many tokens each layer sees; None: all."""
        self._output, self._slots, self._windows = output, slots, windows
        self._cache = RowCache(windows)
        self._rows = Rows()
        self._damaged = False

    def open(self, terms: Terms) -> BatchedRow:
        return self._rows.open(terms)

    def close(self, row: BatchedRow) -> None:
        self._damaged = self._damaged or row.damaged
        self._rows.close(row, self._cache)
        self._rest()

    def forward(self, work: Work) -> mx.array:
        """Logits [n, vocabulary] after each row's last new token, not evaluated."""
        rows, tokens, back = in_order(work)
        self._cache.prepare([row.index for row in rows], [row.length for row in rows], list(map(len, tokens)))
        self._slots.apply([row.terms for row in rows])
        logits = self._output(padded(tokens), self._cache.layers, [len(new) - 1 for new in tokens])[:, 0]
        for row, new in zip(rows, tokens, strict=True):
            row.length += len(new)
        return logits if back is None else logits[mx.array(back)]

    def likelihood(self, row: BatchedRow, tokens: Sequence[int]) -> Likelihood:
        """The row takes the tokens in behind its end, where the next forward writes over them."""
        self._slots.apply([row.terms])
        width = max(1, SCORED_LOGITS // self._output.vocabulary)
        parts = []
        for first in range(0, len(tokens) - 1, width):
            given = tokens[first : first + width + 1]
            self._cache.prepare([row.index], [row.length + first], [len(given) - 1])
            parts += likelihoods(self._output([given[:-1]], self._cache.layers), [given[1:]])
        answer = joined(parts)
        if not all(map(math.isfinite, answer.logprobs)):
            self._cache.clear(row.index, row.length)
        return answer

    def snapshot(self, row: BatchedRow, length: int) -> RowState:
        return self._cache.snapshot(row.index, length)

    def restore(self, row: BatchedRow, state: RowState, length: int) -> None:
        self._cache.restore(row.index, state, length)
        row.length = length

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """Prompts in one forward; then their continuations, each a row that begins with its prompt's keys."""
        answers: list[list[Likelihood]] = [[] for _ in questions]
        for group in _groups(range(len(questions)), lambda index: len(questions[index].prompt), SCORED_COLUMNS):
            for index, answer in zip(group, self._score([questions[index] for index in group]), strict=True):
                answers[index] = answer
        self._rest()
        return answers

    def _score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        prompts = [question.prompt for question in questions]
        cache = RowCache(self._windows)
        cache.prepare(range(len(prompts)), [0] * len(prompts), list(map(len, prompts)))
        self._slots.apply([question.terms for question in questions])
        logits = self._output(padded(prompts), cache.layers, [len(prompt) - 1 for prompt in prompts])
        branches = [
            Branch(owner, tokens) for owner, question in enumerate(questions) for tokens in question.continuations
        ]
        if not branches:
            return [[] for _ in questions]
        firsts = logits[mx.array([branch.owner for branch in branches])]
        parts = [[first] for first in likelihoods(firsts, [branch.tokens[:1] for branch in branches])]
        for number, rest in self._branched(questions, cache, branches):
            parts[number].append(rest)
        whole = iter(map(joined, parts))
        return [[next(whole) for _ in question.continuations] for question in questions]

    def _branched(
        self, questions: Sequence[Question], cache: RowCache, branches: Sequence[Branch]
    ) -> Iterator[tuple[int, Likelihood]]:
        """Number and likelihood of every branch but for its first token. ``cache`` holds the questions' prompts."""
        longest = max(len(question.prompt) for question in questions)

        def size(number: int) -> int:
            tokens = len(branches[number].tokens) - 1
            return max(longest + tokens, tokens * self._output.vocabulary * SCORED_COLUMNS // SCORED_LOGITS)

        more = [number for number, branch in enumerate(branches) if len(branch.tokens) > 1]
        for group in _groups(more, size, SCORED_COLUMNS):
            owners = [branches[number].owner for number in group]
            tokens = [branches[number].tokens for number in group]
            counts = [len(each) - 1 for each in tokens]
            fork = cache.fork(owners, longest, max(counts))
            fork.prepare(range(len(group)), [len(questions[owner].prompt) for owner in owners], counts)
            self._slots.apply([questions[owner].terms for owner in owners])
            logits = self._output(padded([each[:-1] for each in tokens]), fork.layers)
            yield from zip(group, likelihoods(logits, [each[1:] for each in tokens]), strict=True)

    def _rest(self) -> None:
        """Without rows nothing holds adapters, nor what a forward left that could not be computed."""
        if self._rows:
            return
        self._slots.apply(())
        if self._damaged:
            self._cache, self._damaged = RowCache(self._windows), False


def _groups(items: Iterable[int], size: Callable[[int], int], limit: int) -> Iterator[list[int]]:
    """Items of like size, as many as stay within the limit, and waste little, when padded to the largest."""
    group: list[int] = []
    total = 0
    for item in sorted(items, key=size):
        padded_size = size(item) * (len(group) + 1)
        if group and (padded_size > limit or padded_size - total - size(item) > SCORED_PADDING):
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
    if group:
        yield group

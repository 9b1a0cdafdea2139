"""An engine without a model: what follows a row is a function of its stack and its tokens, and misuse is an error."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inference_worker.engine import Facts, Likelihood, Question, Terms

VOCABULARY = 48


def logits_after(terms: Terms, tokens: Sequence[int]) -> np.ndarray:
    """Float32 [vocabulary], the same for the same stack and tokens, and hardly ever for others."""
    seed = repr(([(term.weights.digest, term.scale) for term in terms], list(tokens))).encode()
    return np.random.Generator(np.random.PCG64(zlib.crc32(seed))).normal(0, 3, VOCABULARY).astype(np.float32)


def likelihood_after(terms: Terms, before: Sequence[int], tokens: Sequence[int]) -> Likelihood:
    """Of each of ``tokens``, after ``before`` and those in front of it."""
    logprobs, greedy = [], []
    for count, token in enumerate(tokens):
        logits = logits_after(terms, [*before, *tokens[:count]]).astype(np.float64)
        logprobs.append(float(logits[token] - np.logaddexp.reduce(logits)))
        greedy.append(bool(logits.argmax() == token))
    return Likelihood(tuple(logprobs), tuple(greedy))


@dataclass(frozen=True)
class FakeWeights:
    digest: str
    damaged: bool = False
    """What it computes is not finite."""
    memory_bytes: int = 0


@dataclass(eq=False)
class FakeRow:
    terms: Terms
    tokens: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class FakeState:
    terms: Terms
    tokens: tuple[int, ...]
    memory_bytes: int = 1


@dataclass(frozen=True)
class FakeLogits:
    rows: list[np.ndarray]
    finite: list[bool]

    @property
    def greedy(self) -> list[int]:
        return [int(row.argmax()) for row in self.rows]

    def row(self, index: int) -> np.ndarray:
        return self.rows[index]


class FakeEngine:
    """`inference_worker.engine.Engine`, as far as a scheduler goes."""

    tokenizer: Any = None

    def __init__(self, batched: bool = True) -> None:
        self.facts = Facts("fake", "none", "none", 4096, VOCABULARY, batched)
        self.rows: list[FakeRow] = []
        self.most_rows = 0
        self.break_next = False
        self.broke: Callable[[Sequence[Any]], None] = lambda asked: None
        """Is told the rows or questions of a call that fails."""

    def open(self, terms: Terms) -> FakeRow:
        row = FakeRow(terms)
        self.rows.append(row)
        self.most_rows = max(self.most_rows, len(self.rows))
        return row

    def close(self, row: FakeRow) -> None:
        self.rows.remove(row)

    def forward(self, work: Sequence[tuple[FakeRow, Sequence[int]]]) -> FakeLogits:
        rows = [row for row, _ in work]
        assert len(set(map(id, rows))) == len(rows) > 0, "each row once"
        assert all(row in self.rows for row in rows), "open rows only"
        assert all(len(tokens) > 0 for _, tokens in work), "at least one token each"
        self._break(rows)
        for row, tokens in work:
            row.tokens += tokens
        damaged = [any(term.weights.damaged for term in row.terms) for row in rows]  # type: ignore[attr-defined]
        return FakeLogits([logits_after(row.terms, row.tokens) for row in rows], [not bad for bad in damaged])

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        self._break(questions)
        return [
            [likelihood_after(asked.terms, asked.prompt, tokens) for tokens in asked.continuations]
            for asked in questions
        ]

    def likelihood(self, row: FakeRow, tokens: Sequence[int]) -> Likelihood:
        assert row in self.rows
        self._break([row])
        return likelihood_after(row.terms, [*row.tokens, tokens[0]], tokens[1:])

    def snapshot(self, row: FakeRow, length: int) -> FakeState:
        assert self.facts.batched and row in self.rows and 0 < length <= row.length
        return FakeState(row.terms, tuple(row.tokens[:length]))

    def restore(self, row: FakeRow, state: FakeState, length: int) -> None:
        assert self.facts.batched and row in self.rows and not row.tokens and 0 < length <= len(state.tokens)
        assert row.terms == state.terms, "keys and values never cross from one stack to another"
        row.tokens += state.tokens[:length]

    def _break(self, asked: Sequence[Any]) -> None:
        if self.break_next:
            self.break_next = False
            self.broke(asked)
            raise RuntimeError("out of memory")

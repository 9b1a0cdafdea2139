"""One row at a time through the library's own cache: for architectures whose state is no list of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from inference_worker.engine import Likelihood, Question, Terms
from inference_worker.engine_mlx.likelihoods import joined, likelihoods
from inference_worker.engine_mlx.output import Output
from inference_worker.engine_mlx.rows import LibraryCache
from inference_worker.engine_mlx.slots import Slots


@dataclass(eq=False)
class SoloRow:
    """A sequence in progress, with a cache of the library's making."""

    terms: Terms
    state: LibraryCache
    length: int = 0
    damaged: bool = False


class SoloDecoder:
    """Computes one row after the other."""

    def __init__(self, model: object, output: Output, slots: Slots) -> None:
        self._model, self._output, self._slots = model, output, slots
        self._open = 0

    def open(self, terms: Terms) -> SoloRow:
        self._open += 1
        return SoloRow(terms, LibraryCache(self._model))

    def close(self, row: SoloRow) -> None:
        self._open -= 1
        if not self._open:
            self._slots.apply(())

    def forward(self, work: Sequence[tuple[SoloRow, Sequence[int]]]) -> mx.array:
        """Logits [n, vocabulary] after each row's last new token."""
        logits = []
        for row, tokens in work:
            logits.append(self._advance(row.terms, row.state, tokens)[:, 0])
            row.length += len(tokens)
        return mx.concatenate(logits)

    def likelihood(self, row: SoloRow, tokens: Sequence[int]) -> Likelihood:
        return self._behind(row.terms, row.state.copy(), tokens)

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        return [self._score(question) for question in questions]

    def _score(self, question: Question) -> list[Likelihood]:
        state = LibraryCache(self._model)
        logits = self._advance(question.terms, state, question.prompt)
        answers = []
        for tokens in question.continuations:
            first = likelihoods(logits, [tokens[:1]])
            answers.append(joined([*first, self._behind(question.terms, state.copy(), tokens)]))
        return answers

    def _behind(self, terms: Terms, state: LibraryCache, tokens: Sequence[int]) -> Likelihood:
        """Of each of ``tokens`` but the first. Uses ``state`` up."""
        if len(tokens) < 2:
            return Likelihood((), ())
        self._slots.apply([terms])
        return likelihoods(self._output([tokens[:-1]], state.layers), [tokens[1:]])[0]

    def _advance(self, terms: Terms, state: LibraryCache, tokens: Sequence[int]) -> mx.array:
        """Logits [1, 1, vocabulary] after the last token."""
        self._slots.apply([terms])
        logits = self._output([tokens], state.layers, [len(tokens) - 1])
        state.evaluate(logits)
        return logits

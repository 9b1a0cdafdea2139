"""One row at a time through the library's own cache: for architectures whose state is no list of keys and values."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from inference_worker.engine import Likelihood, Question, Terms
from inference_worker.engine_torch.packing import likelihood_of
from inference_worker.engine_torch.slots import Slots


@dataclass(eq=False)
class SoloRow:
    """A sequence in progress, with a cache of the library's making."""

    terms: Terms
    state: Any = None
    length: int = 0
    damaged: bool = False


class SoloDecoder:
    """Computes one row after the other."""

    def __init__(self, model: Any, slots: Slots) -> None:
        self._model = model
        self._slots = slots
        parameters = inspect.signature(model.forward).parameters
        self._state_name = "past_key_values" if "past_key_values" in parameters else "cache_params"

    def open(self, terms: Terms) -> SoloRow:
        self._slots.open(terms)
        return SoloRow(terms)

    def close(self, row: SoloRow) -> None:
        self._slots.close(row.terms)

    def forward(self, work: Sequence[tuple[SoloRow, Sequence[int]]]) -> torch.Tensor:
        """Logits [n, vocabulary] after each row's last new token."""
        return torch.stack([self._advance(row, tokens) for row, tokens in work])

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        try:
            return [[self._likelihood(question, tokens) for tokens in question.continuations] for question in questions]
        finally:
            self._slots.apply(())

    def _advance(self, row: SoloRow, tokens: Sequence[int]) -> torch.Tensor:
        self._slots.apply([row.terms])
        # A recurrent state takes a whole prompt at once, or one token.
        parts = [tokens] if row.state is None else [[token] for token in tokens]
        logits = torch.empty(0)
        for part in parts:
            row.length += len(part)
            output = self._run(part, row.length, use_cache=True, **({self._state_name: row.state} if row.state else {}))
            row.state = getattr(output, self._state_name)
            logits = output.logits[0, -1]
        return logits

    def _likelihood(self, question: Question, continuation: tuple[int, ...]) -> Likelihood:
        self._slots.apply([question.terms])
        tokens = [*question.prompt, *continuation]
        logits = self._run(tokens, len(tokens), use_cache=False).logits[0]
        return likelihood_of(logits[len(question.prompt) - 1 : -1], continuation)

    def _run(self, tokens: Sequence[int], length: int, **state: Any) -> Any:
        device = self._model.device
        if self._state_name == "past_key_values":  # a purely recurrent state has no keys to mask
            state["attention_mask"] = torch.ones(1, length, dtype=torch.long, device=device)
        return self._model(input_ids=torch.tensor([list(tokens)], device=device), **state)

"""Rows of different lengths and adapters in one forward, over unmodified modules of the library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from inference_worker.engine import Likelihood, Question, Terms
from inference_worker.engine_torch.masks import Masks
from inference_worker.engine_torch.packing import (
    CONTEXT,
    PADDING,
    Packed,
    bundles,
    likelihood_of,
    likelihoods,
    pack,
    padded,
    related,
)
from inference_worker.engine_torch.rows import RowCache
from inference_worker.engine_torch.slots import Slots
from inference_worker.rows import BatchedRow, Rows, Work, in_order

LARGEST_PIECE = 512
"""Tokens whose logits are held at once."""


@dataclass(frozen=True, eq=False)
class RowState:
    """A copy of a row's first columns."""

    columns: list[torch.Tensor]
    """Keys and values of each layer, [heads, length, size]."""

    @property
    def memory_bytes(self) -> int:
        return sum(column.nbytes for column in self.columns)


class BatchedDecoder:
    """Computes many rows at once. Rows in use are always the first of the cache, so that all of them are one view."""

    def __init__(self, model: Any, slots: Slots) -> None:
        self._model = model
        self._slots = slots
        config = model.config.get_text_config()
        self._masks = Masks(config, model.dtype)
        self._cache = RowCache(config.num_hidden_layers, model.device)
        self._rows = Rows()
        self._columns = torch.arange(1, device=model.device)
        # An index, not a count: a slice of a padded batch would make the output layer copy its weights per row.
        self._last = torch.tensor([-1], device=model.device)

    def open(self, terms: Terms) -> BatchedRow:
        self._slots.open(terms)
        return self._rows.open(terms)

    def close(self, row: BatchedRow) -> None:
        self._rows.close(row, self._cache)
        self._slots.close(row.terms)

    def forward(self, work: Work) -> torch.Tensor:
        """Logits [n, vocabulary] after each row's last new token."""
        parts = self._parts([row.terms for row, _ in work])
        logits = [self._run(work[part], self._last)[:, 0] for part in parts]
        for row, tokens in work:
            row.length += len(tokens)
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    def likelihood(self, row: BatchedRow, tokens: Sequence[int]) -> Likelihood:
        """Of each of ``tokens`` but the first. Their columns lie behind the row's end, where the next ones go."""
        length, parts = row.length, []
        try:
            for start in range(0, len(tokens) - 1, LARGEST_PIECE):
                piece = tokens[start : start + LARGEST_PIECE + 1]
                parts.append(likelihood_of(self._run([(row, piece[:-1])], 0)[0], piece[1:]))
                row.length += len(piece) - 1
        finally:
            row.length = length
        whole = Likelihood(
            tuple(value for part in parts for value in part.logprobs),
            tuple(value for part in parts for value in part.greedy),
        )
        row.damaged = row.damaged or not all(map(math.isfinite, whole.logprobs))
        return whole

    def snapshot(self, row: BatchedRow, length: int) -> RowState:
        return RowState(self._cache.copied(row.index, length))

    def restore(self, row: BatchedRow, state: RowState, length: int) -> None:
        self._cache.paste(row.index, state.columns, length)
        row.length = length

    def _parts(self, stacks: Sequence[Terms]) -> list[slice]:
        """Rows whose adapters have room beside each other; nearly always all of them."""
        if len(stacks) == 1 or not any(stacks):
            return [slice(None)]
        parts, start = [], 0
        for end in range(1, len(stacks) + 1):
            if end == len(stacks) or not self._slots.fit(stacks[start : end + 1]):
                parts.append(slice(start, end))
                start = end
        return parts

    def _run(self, work: Work, keep: torch.Tensor | int) -> torch.Tensor:
        """Logits [n, kept, vocabulary] of one forward over rows' new tokens. The rows' lengths stay."""
        rows, tokens, back = in_order(work)
        counts = [len(new) for new in tokens]
        positions = self._cache.prepare([row.index for row in rows], [row.length for row in rows], counts)
        if len(self._columns) < self._cache.length:
            self._columns = torch.arange(2 * self._cache.length, device=positions.device)
        self._slots.apply([row.terms for row in rows])
        logits: torch.Tensor = self._model(
            input_ids=torch.tensor(padded(tokens), device=positions.device),
            position_ids=positions,
            attention_mask=self._masks.of_one_token(positions, self._cache.length)
            if self._cache.in_step and max(counts) == 1
            else self._masks.build(positions, self._columns[None, : self._cache.length]),
            past_key_values=self._cache.library_cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits if back is None else logits[back]

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """Each question in one row: the prompt, and behind it all continuations, each seeing the prompt and itself."""
        parts = self._parts([question.terms for question in questions])
        return [answers for part in parts for answers in self._answer(questions[part])]

    def _answer(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        packed = [pack(bundle) for bundle in bundles(questions)]
        device = self._model.device
        ids, positions, groups, branches = (
            torch.tensor(padded([getattr(row, name) for row in packed], empty), device=device)
            for name, empty in (("ids", 0), ("positions", 0), ("groups", PADDING), ("branches", CONTEXT))
        )
        self._slots.apply([row.terms for row in packed])
        try:
            return self._scored(packed, ids, positions, related(groups, branches))
        finally:
            if not self._rows:
                self._slots.apply(())

    def _scored(
        self, packed: list[Packed], ids: torch.Tensor, positions: torch.Tensor, related: torch.Tensor
    ) -> list[list[Likelihood]]:
        kept = max(len(row.ids) - row.first + 1 for row in packed)
        logits = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self._masks.build(positions, positions, related),
            use_cache=False,
            logits_to_keep=kept,
        ).logits
        return [answers for index, row in enumerate(packed) for answers in likelihoods(row, logits[index])]

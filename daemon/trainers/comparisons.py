"""What a run is compared with, measured before its first step: teachers of anchors, references of pairs.

It follows from the job alone, so a run that goes on measures it again instead of keeping it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from daemon.trainers.batches import Batch, batches
from daemon.trainers.examples import Distributions, Examples, Tokens, Wrong


class Measured(Protocol):
    """A model as it is now. Nothing is learned by measuring, and no random number is drawn."""

    padded: bool
    """Whether rows of one pass are padded to one length."""
    pass_tokens: int

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        """Of each row's response, [n]."""

    def distributions(self, batch: Batch, of_base: bool) -> Distributions:
        """At every place of the batch: of the bare base, or with all adapters."""


def prepared(examples: Examples, model: Measured) -> Examples:
    """``examples`` with a teacher for each anchor and a reference for each pair."""
    taught = _taught([anchor for anchor in examples.anchors if not anchor.of_parent], model, of_base=True)
    taught |= _taught([anchor for anchor in examples.anchors if anchor.of_parent], model, of_base=False)
    preferred = _preferred(examples.pairs, model)
    return replace(
        examples,
        signals=[preferred.get(signal, signal) for signal in examples.signals],
        anchors=[taught[anchor] for anchor in examples.anchors],
    )


def loss(examples: Sequence[Tokens], model: Measured) -> float:
    """Mean cross-entropy of response tokens in nats, weighted as a step's."""
    found = _log_probabilities([_row(example.prompt, example.response) for example in examples], model)
    total = sum(example.weight * len(example.response) for example in examples)
    return -sum(example.weight * value for example, value in zip(examples, found, strict=True)) / total


def _taught(anchors: Sequence[Tokens], model: Measured, of_base: bool) -> dict[Tokens, Tokens]:
    found: dict[Tokens, Tokens] = {}
    for batch in batches(anchors, model.pass_tokens, model.padded):
        given = model.distributions(batch, of_base)
        edges = np.cumsum([len(anchor.response) for anchor in batch.examples])[:-1]
        parts = zip(
            np.split(given.tokens.astype(np.int32), edges), np.split(given.log_probabilities, edges), strict=True
        )
        for anchor, part in zip(batch.examples, parts, strict=True):
            found[anchor] = replace(anchor, teacher=Distributions(*part))
    return found


def _preferred(pairs: Sequence[Tokens], model: Measured) -> dict[Tokens, Tokens]:
    right = _log_probabilities([_row(pair.prompt, pair.response) for pair in pairs], model)
    wrong = _log_probabilities([_row(pair.prompt, pair.wrong.response) for pair in pairs if pair.wrong], model)
    return {
        pair: replace(pair, wrong=Wrong(pair.wrong.response, reference))
        for pair, reference in zip(pairs, zip(right, wrong, strict=True), strict=True)
        if pair.wrong
    }


def _log_probabilities(rows: Sequence[Tokens], model: Measured) -> list[float]:
    found: dict[Tokens, float] = {}
    for batch in batches(rows, model.pass_tokens, model.padded):
        found |= dict(zip(batch.examples, model.log_probabilities(batch).tolist(), strict=True))
    return [found[row] for row in rows]


def _row(prompt: list[int], response: list[int]) -> Tokens:
    return Tokens(prompt, response, 1.0)

"""What a run is compared with, measured before its first step: teachers of anchors, references of pairs.

It follows from the job alone, so a run that goes on measures it again instead of keeping it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from daemon.trainers.batches import Batch, batches
from daemon.trainers.examples import Distributions, Examples, Tokens, Wrong

Tell = Callable[[int, int], None]
"""Called after each pass: (texts measured so far, of how many). All of them can take many minutes on a CPU."""


class Measured(Protocol):
    """A model as it is now. Nothing is learned by measuring, and no random number is drawn."""

    padded: bool
    """Whether rows of one pass are padded to one length."""
    pass_tokens: int

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        """Of each row's response, [n]."""

    def distributions(self, batch: Batch, of_base: bool) -> Distributions:
        """At every place of the batch: of the bare base, or with all adapters."""


def prepared(examples: Examples, model: Measured, tell: Tell) -> Examples:
    """``examples`` with a teacher for each anchor and a reference for each pair."""
    passes = _Passes(model, len(examples.anchors) + 2 * len(examples.pairs), tell)
    taught = _taught([anchor for anchor in examples.anchors if not anchor.of_parent], passes, of_base=True)
    taught |= _taught([anchor for anchor in examples.anchors if anchor.of_parent], passes, of_base=False)
    preferred = _preferred(examples.pairs, passes)
    return replace(
        examples,
        signals=[preferred.get(signal, signal) for signal in examples.signals],
        anchors=[taught[anchor] for anchor in examples.anchors],
    )


def loss(examples: Sequence[Tokens], model: Measured, tell: Tell) -> float:
    """Mean cross-entropy of response tokens in nats, weighted as a step's."""
    passes = _Passes(model, len(examples), tell)
    found = _log_probabilities([_row(example.prompt, example.response) for example in examples], passes)
    total = sum(example.weight * len(example.response) for example in examples)
    return -sum(example.weight * value for example, value in zip(examples, found, strict=True)) / total


@dataclass
class _Passes:
    """A model's passes over all that is to be measured."""

    model: Measured
    of: int
    """Texts."""
    tell: Tell
    done: int = 0

    def over(self, rows: Sequence[Tokens]) -> Iterator[Batch]:
        for batch in batches(rows, self.model.pass_tokens, self.model.padded):
            yield batch
            self.done += len(batch.examples)
            self.tell(self.done, self.of)


def _taught(anchors: Sequence[Tokens], passes: _Passes, of_base: bool) -> dict[Tokens, Tokens]:
    found: dict[Tokens, Tokens] = {}
    for batch in passes.over(anchors):
        given = passes.model.distributions(batch, of_base)
        edges = np.cumsum([len(anchor.response) for anchor in batch.examples])[:-1]
        parts = zip(
            np.split(given.tokens.astype(np.int32), edges), np.split(given.log_probabilities, edges), strict=True
        )
        for anchor, part in zip(batch.examples, parts, strict=True):
            found[anchor] = replace(anchor, teacher=Distributions(*part))
    return found


def _preferred(pairs: Sequence[Tokens], passes: _Passes) -> dict[Tokens, Tokens]:
    right = _log_probabilities([_row(pair.prompt, pair.response) for pair in pairs], passes)
    wrong = _log_probabilities([_row(pair.prompt, pair.wrong.response) for pair in pairs if pair.wrong], passes)
    return {
        pair: replace(pair, wrong=Wrong(pair.wrong.response, reference))
        for pair, reference in zip(pairs, zip(right, wrong, strict=True), strict=True)
        if pair.wrong
    }


def _log_probabilities(rows: Sequence[Tokens], passes: _Passes) -> list[float]:
    found: dict[Tokens, float] = {}
    for batch in passes.over(rows):
        found |= dict(zip(batch.examples, passes.model.log_probabilities(batch).tolist(), strict=True))
    return [found[row] for row in rows]


def _row(prompt: list[int], response: list[int]) -> Tokens:
    return Tokens(prompt, response, 1.0)

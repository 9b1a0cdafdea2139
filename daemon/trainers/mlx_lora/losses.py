"""What a step with MLX minimises, and logits at response positions only, for any mlx-lm model."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from daemon.trainers.batches import Batch
from daemon.trainers.examples import TEACHER_TOKENS, Distributions
from genome.training import TrainingSettings

SMALLEST = 1e-9
"""Of a probability that is had by taking others from 1."""


class _ChosenLinear(nn.Module):
    """An output layer that sees only what ``choose`` lets through."""

    def __init__(self, linear: nn.Module, choose: Callable[[mx.array], mx.array]) -> None:
        super().__init__()
        self.linear = linear
        self._choose = choose

    def __call__(self, hidden: mx.array) -> mx.array:
        return self.linear(self._choose(hidden))


class ResponseLogits:
    """Calls a model and gets its logits at a batch's response positions alone, [k, vocabulary].

    mlx-lm's models end in an ``lm_head`` or in their embedding used backwards (``as_linear``); the choice is made
    before either, so that the other logits are never computed. A model that ends otherwise gives all of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._places: tuple[mx.array, mx.array] | None = None
        for path, module in model.named_modules():
            if path.rpartition(".")[2] == "lm_head":
                model.update_modules(_nested(path, _ChosenLinear(module, self._choose)))
            elif hasattr(module, "as_linear"):
                module.as_linear = _before(self._choose, module.as_linear)

    def __call__(self, batch: Batch) -> mx.array:
        places = self._places = mx.array(batch.rows), mx.array(batch.columns)
        logits = self._model(mx.array(batch.padded))
        chosen, self._places = self._places is None, None
        return (logits[0] if chosen else logits[places]).astype(mx.float32)

    def _choose(self, hidden: mx.array) -> mx.array:
        if self._places is None:
            return hidden
        places, self._places = self._places, None
        return hidden[places][None]


class Objective:
    """The terms of a step's loss; each is a sum over a batch, and over a step's batches a weighted mean."""

    def __init__(self, logits: ResponseLogits, settings: TrainingSettings) -> None:
        self._logits, self._settings = logits, settings

    def learn(self, batch: Batch) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        """Cross-entropy of right answers plus the weighted preference for them over wrong ones, and both alone: DPO
        (arXiv:2305.18290), against the model as it was when the run began."""
        losses = self._losses(batch)
        cross_entropy = (losses * mx.array(batch.weights)).sum()
        gains = _by_row(-losses, batch)[mx.array(batch.pairs)] - mx.array(batch.references)
        margins = self._settings.preference_beta * (gains[:, 0] - gains[:, 1])
        preference = -(nn.log_sigmoid(margins) * mx.array(batch.pair_weights)).sum()
        return cross_entropy + self._settings.preference_weight * preference, (cross_entropy, preference)

    def keep(self, batch: Batch) -> mx.array:
        """KL(teacher ‖ model)."""
        assert batch.teacher is not None
        theirs = mx.array(batch.teacher.log_probabilities)
        ours = _with_rest(nn.log_softmax(self._logits(batch), axis=-1), mx.array(batch.teacher.tokens))
        return ((mx.exp(theirs) * (theirs - ours)).sum(axis=-1) * mx.array(batch.weights)).sum()

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        """Of each row's response, [n]."""
        return np.array(_by_row(-self._losses(batch), batch))

    def distributions(self, batch: Batch) -> Distributions:
        found = nn.log_softmax(self._logits(batch), axis=-1)
        count = min(TEACHER_TOKENS, found.shape[-1])
        tokens = mx.argpartition(-found, count - 1, axis=-1)[:, :count]
        return Distributions(np.array(tokens, dtype=np.int64), np.array(_with_rest(found, tokens)))

    def _losses(self, batch: Batch) -> mx.array:
        return nn.losses.cross_entropy(self._logits(batch), mx.array(batch.targets), reduction="none")


def _by_row(values: mx.array, batch: Batch) -> mx.array:
    """Sums of [k] over each row's places, [n]."""
    return mx.zeros(len(batch.lengths)).at[mx.array(batch.rows)].add(values)


def _with_rest(log_probabilities: mx.array, tokens: mx.array) -> mx.array:
    """Of ``tokens`` [k, c], and of all others together: [k, c + 1]."""
    chosen = mx.take_along_axis(log_probabilities, tokens, axis=-1)
    rest = mx.log(mx.maximum(1 - mx.exp(chosen).sum(axis=-1, keepdims=True), SMALLEST))
    return mx.concatenate([chosen, rest], axis=-1)


def _before(
    choose: Callable[[mx.array], mx.array], layer: Callable[[mx.array], mx.array]
) -> Callable[[mx.array], mx.array]:
    return lambda hidden: layer(choose(hidden))


def _nested(path: str, module: nn.Module) -> dict[str, object]:
    """``{"a": {"b": module}}`` for the path ``a.b``, as ``update_modules`` takes it."""
    tree: object = module
    for name in reversed(path.split(".")):
        tree = {name: tree}
    return tree  # type: ignore[return-value]

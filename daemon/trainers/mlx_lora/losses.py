"""The two terms of a step's loss, and logits at response positions only, for any mlx-lm model."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from daemon.trainers.batches import Batch


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
        logits = self._model(mx.array(batch.tokens))
        chosen, self._places = self._places is None, None
        return (logits[0] if chosen else logits[places]).astype(mx.float32)

    def cross_entropy(self, batch: Batch) -> mx.array:
        """Weighted sum over the batch's response tokens; the weights add up to one over a step."""
        losses = nn.losses.cross_entropy(self(batch), mx.array(batch.targets), reduction="none")
        return (losses * mx.array(batch.weights)).sum()

    def divergence(self, batch: Batch, reference: mx.array) -> mx.array:
        """KL(reference ‖ model), weighted likewise. ``reference`` [k, vocabulary]: log probabilities."""
        losses = (mx.exp(reference) * (reference - self.log_probabilities(batch))).sum(axis=-1)
        return (losses * mx.array(batch.weights)).sum()

    def log_probabilities(self, batch: Batch) -> mx.array:
        logits = self(batch)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    def _choose(self, hidden: mx.array) -> mx.array:
        if self._places is None:
            return hidden
        places, self._places = self._places, None
        return hidden[places][None]


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

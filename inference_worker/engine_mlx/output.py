"""Logits of the tokens that are asked for alone, for any mlx-lm model.

The library's models give logits for every token, and MLX computes what is asked of it; so the choice is made before
the output layer, wherever the model has it. Which layer that is a model is asked once, by watching which is called
last: some end in a linear layer, some in their embedding used backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from inference_worker.engine_mlx.slots import Slots

TIED = "lm_head"
"""How adapters name an output layer that is the embedding used backwards."""


class Output:
    """Calls a model. Logits come in single precision."""

    def __init__(self, model: Any, slots: Slots) -> None:
        self._model = model
        self._columns: mx.array | None = None
        tokens = mx.array([[0, 0, 0]])
        calls: list[tuple[Any, mx.array]] = []
        layers = [*slots.layers.values(), *slots.embeddings]
        for layer in layers:
            layer.before = _recorder(layer, calls)
        logits = model(tokens)  # nothing is computed, for nothing is evaluated
        for layer in layers:
            layer.before = None
        self.vocabulary: int = logits.shape[-1]
        if calls:
            last, x = calls[-1]
            slots.dtype = x.dtype
            if last.shape[0] == self.vocabulary and x.shape[:2] == tokens.shape:
                last.before = self._choose
                if any(last is embedding for embedding in slots.embeddings):
                    slots.layers[TIED] = last

    def __call__(self, tokens: Sequence[Sequence[int]], cache: Any, columns: Sequence[int] | None = None) -> mx.array:
        """Logits [n, q, vocabulary] of ``tokens`` [n, q]; with ``columns`` [n]: [n, 1, vocabulary] of these alone."""
        self._columns = None if columns is None else mx.array(list(columns))
        try:
            logits = self._choose(self._model(mx.array(tokens), cache=cache))
        finally:
            self._columns = None
        return logits.astype(mx.float32)

    def _choose(self, x: mx.array) -> mx.array:
        """[n, q, …] → [n, 1, …], the first time."""
        if self._columns is None:
            return x
        columns, self._columns = self._columns, None
        return mx.take_along_axis(x, columns[:, None, None], axis=1)


def _recorder(layer: Any, calls: list[tuple[Any, mx.array]]) -> Callable[[mx.array], mx.array]:
    def record(x: mx.array) -> mx.array:
        calls.append((layer, x))
        return x

    return record

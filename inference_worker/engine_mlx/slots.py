"""Adapters in the linear layers: W'x = Wx + Σ scale · B(Ax), for rows that differ in their adapters.

Every linear layer of the base gets a slot by a change of class, so that paths, parameters and ties stay as they are;
an embedding gets one for its use as the output layer. Before a forward, `Slots.apply` puts into each layer the factors
of the adapters that the rows at hand use, side by side, and which row uses which: one pair of matrix products serves
them all, and no other adapter is computed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from genome.errors import InvalidAdapter
from genome.lora import Lora, check_places
from genome.places import is_expert
from genome.tensors import Tensor
from inference_worker.engine import Term, Terms

MIXTURES = 4
"""Sets of adapters whose factors are kept side by side."""


@dataclass(frozen=True)
class Factors:
    """One layer's update."""

    a: mx.array
    """[r, in]"""
    b: mx.array
    """[r, out], the scaling multiplied in."""


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One adapter on the engine's device, by module path."""

    modules: dict[str, Factors]
    digest: str

    @property
    def memory_bytes(self) -> int:
        return sum(factors.a.nbytes + factors.b.nbytes for factors in self.modules.values())


@dataclass(frozen=True)
class Slot:
    """What one layer adds in the next forwards."""

    factors: Factors
    uses: mx.array | None
    """[rows, 1, r]: which of the r directions each row takes part in; None: all rows in all."""

    def added(self, output: mx.array, x: mx.array) -> mx.array:
        """``output`` [..., out] and the update of ``x`` [..., in]."""
        inner = x @ self.factors.a.T
        if self.uses is not None:
            # Chosen, not multiplied: 0 · inf of an adapter that overflows would reach rows that do not use it. Some
            # models flatten [rows, tokens] before a layer; the rows come apart again here.
            by_row = inner.reshape(self.uses.shape[0], -1, inner.shape[-1])
            inner = mx.where(self.uses, by_row, mx.zeros((), inner.dtype)).reshape(inner.shape)
        return mx.addmm(output, inner, self.factors.b)


class Slotted:
    """A layer with room for adapters."""

    slot: Slot | None = None
    before: Callable[[mx.array], mx.array] | None = None
    """Goes over the layer's input first."""

    def through(self, x: mx.array, product: Callable[[mx.array], mx.array]) -> mx.array:
        if self.before is not None:
            x = self.before(x)
        output = product(x)
        return output if self.slot is None else self.slot.added(output, x)

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]"""
        rows, columns = self.weight.shape  # type: ignore[attr-defined]
        return (rows, columns * 32 // self.bits) if hasattr(self, "bits") else (rows, columns)


class SlotLinear(Slotted, nn.Linear):
    def __call__(self, x: mx.array) -> mx.array:
        return self.through(x, super().__call__)


class SlotQuantizedLinear(Slotted, nn.QuantizedLinear):
    def __call__(self, x: mx.array) -> mx.array:
        return self.through(x, super().__call__)


class SlotEmbedding(Slotted, nn.Embedding):
    def as_linear(self, x: mx.array) -> mx.array:
        return self.through(x, super().as_linear)


class SlotQuantizedEmbedding(Slotted, nn.QuantizedEmbedding):
    def as_linear(self, x: mx.array) -> mx.array:
        return self.through(x, super().as_linear)


LINEAR: dict[type, type] = {nn.Linear: SlotLinear, nn.QuantizedLinear: SlotQuantizedLinear}
EMBEDDING: dict[type, type] = {nn.Embedding: SlotEmbedding, nn.QuantizedEmbedding: SlotQuantizedEmbedding}


class Slots:
    """The adapters' places in one model."""

    def __init__(self, model: nn.Module) -> None:
        self.layers: dict[str, Any] = {}
        self.embeddings: list[Any] = []
        self.dtype = mx.float32
        """Of the factors; what the layers' inputs are."""
        for path, module in model.named_modules():
            if type(module) in LINEAR and not is_expert(path):
                module.__class__ = LINEAR[type(module)]
                self.layers[path] = module
            elif type(module) in EMBEDDING:
                module.__class__ = EMBEDDING[type(module)]
                self.embeddings.append(module)
        self._applied: tuple[Terms, ...] | None = ()
        self._mixtures: OrderedDict[Terms, dict[str, Mixture]] = OrderedDict()

    def size(self, lora: Lora) -> int:
        """Bytes it takes here. Checks names and shapes; raises InvalidAdapter."""
        check_places(lora, {path: layer.shape for path, layer in self.layers.items()})
        shapes = [tensor.shape for factors in lora.modules.values() for tensor in (factors.a, factors.b)]
        return sum(map(math.prod, shapes)) * self.dtype.size

    def load(self, lora: Lora) -> LoraWeights:
        """Checks likewise, and copies."""
        self.size(lora)
        modules = {
            path: Factors(self._own(_array(factors.a)), self._own(_array(factors.b).T * factors.scaling))
            for path, factors in lora.modules.items()
        }
        mx.eval([[factors.a, factors.b] for factors in modules.values()])  # another thread cannot evaluate them
        for path, factors in modules.items():  # 0 · inf would reach other rows
            if not (mx.isfinite(factors.a).all().item() and mx.isfinite(factors.b).all().item()):
                raise InvalidAdapter(f"{path} has values too large for {self.dtype}")
        return LoraWeights(modules, lora.identity)

    def forget(self) -> None:
        """Drops the side-by-side copies. Any thread: the step thread keeps what it has in hand."""
        self._mixtures = OrderedDict()

    def apply(self, stacks: Sequence[Terms]) -> None:
        """Sets every layer for forwards over rows with these stacks, in this order. None: the base alone."""
        wanted = tuple(stacks)
        if wanted == self._applied:
            return
        self._applied = None  # until all layers are set
        terms = tuple(dict.fromkeys(term for stack in wanted for term in stack))
        mixture = self._mixture(terms) if terms else {}
        uses = _uses(wanted, terms, mixture)
        for path, layer in self.layers.items():
            part = mixture.get(path)
            layer.slot = Slot(part.factors, uses[part.columns]) if part else None
        self._applied = wanted

    def _mixture(self, terms: Terms) -> dict[str, Mixture]:
        mixtures = self._mixtures
        if terms not in mixtures:
            paths = dict.fromkeys(path for term in terms for path in _modules(term))
            mixtures[terms] = {path: _side_by_side(terms, path) for path in paths}
            if len(mixtures) > MIXTURES:
                mixtures.popitem(last=False)
        mixtures.move_to_end(terms)
        return mixtures[terms]

    def _own(self, matrix: mx.array) -> mx.array:
        return mx.contiguous(matrix.astype(self.dtype))


@dataclass(frozen=True)
class Mixture:
    """Several adapters' factors in one layer, side by side."""

    factors: Factors
    columns: tuple[int, ...]
    """For each of the r directions, which term of the mixture it belongs to."""


def _uses(
    stacks: tuple[Terms, ...], terms: Terms, mixture: dict[str, Mixture]
) -> dict[tuple[int, ...], mx.array | None]:
    """Columns of a layer → [rows, 1, r] of who uses them. Few layouts differ, so few are made."""
    layouts = {part.columns for part in mixture.values()}
    if all(len(stack) == len(terms) for stack in stacks):
        return dict.fromkeys(layouts)
    member = np.array([[term in stack for term in terms] for stack in stacks])
    return {columns: mx.array(member[:, None, list(columns)]) for columns in layouts}


def _array(tensor: Tensor) -> mx.array:
    """In single precision, so that the scaling is multiplied in before anything is rounded."""
    if tensor.dtype == "BF16":
        whole = mx.array(np.frombuffer(tensor.data, np.uint16)).view(mx.bfloat16).astype(mx.float32)
    else:
        values = np.frombuffer(tensor.data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[tensor.dtype])
        whole = mx.array(values.astype(np.float32))
    return whole.reshape(tensor.shape)


def _side_by_side(terms: Terms, path: str) -> Mixture:
    parts = [(index, term, _modules(term)[path]) for index, term in enumerate(terms) if path in _modules(term)]
    columns = tuple(index for index, _, factors in parts for _ in range(factors.a.shape[0]))
    if len(parts) == 1 and parts[0][1].scale == 1:
        return Mixture(parts[0][2], columns)
    a = mx.concatenate([factors.a for _, _, factors in parts])
    b = mx.concatenate([factors.b * term.scale for _, term, factors in parts])
    mx.eval(a, b)
    return Mixture(Factors(a, b), columns)


def _modules(term: Term) -> dict[str, Factors]:
    assert isinstance(term.weights, LoraWeights)
    return term.weights.modules

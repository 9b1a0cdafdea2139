"""Adapters in the linear layers: W'x = Wx + Σ scale · B(Ax), for rows that differ in their adapters.

Every `nn.Linear` of the base becomes a `SlotLinear` by a change of class, so that paths, parameters and ties stay as
they are. Before a forward, `Slots.apply` puts into each layer the factors of the adapters that the rows at hand use,
side by side, and which row uses which: one pair of matrix products serves them all, and no other adapter is computed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from genome.errors import InvalidAdapter
from genome.lora import Lora, Tensor
from inference_worker.engine import Term, Terms

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MIXTURES = 4
"""Sets of adapters whose factors are kept side by side."""


@dataclass(frozen=True)
class Factors:
    """One layer's update."""

    a: torch.Tensor
    """[r, in]"""
    b: torch.Tensor
    """[r, out], the scaling multiplied in."""


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One adapter on the engine's device, by module path."""

    modules: dict[str, Factors]

    @property
    def memory_bytes(self) -> int:
        return sum(factors.a.nbytes + factors.b.nbytes for factors in self.modules.values())


@dataclass(frozen=True)
class Slot:
    """What one layer adds in the next forwards."""

    factors: Factors
    uses: torch.Tensor | None
    """[rows, 1, r]: which of the r directions each row takes part in; None: all rows in all."""


class SlotLinear(nn.Linear):
    """A linear layer with room for adapters."""

    slot: Slot | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name in nn.Linear
        output = functional.linear(input, self.weight, self.bias)
        if self.slot is None:
            return output
        factors, uses = self.slot.factors, self.slot.uses
        inner = functional.linear(input, factors.a)
        if uses is not None:
            # Chosen, not multiplied: 0 · inf of an adapter that overflows would reach rows that do not use it. Some
            # models flatten [rows, tokens] before a layer; the rows come apart again here.
            inner = torch.where(uses, inner.view(uses.shape[0], -1, inner.shape[-1]), 0)
        output.view(-1, output.shape[-1]).addmm_(inner.reshape(-1, inner.shape[-1]), factors.b)
        return output


class Slots:
    """The adapters' places in one model."""

    def __init__(self, model: nn.Module) -> None:
        self._layers: dict[str, SlotLinear] = {}
        for path, module in model.named_modules():
            # An expert sees some of the tokens only, so rows cannot be told apart in it.
            if type(module) is nn.Linear and ".experts." not in path:
                module.__class__ = SlotLinear
                self._layers[path] = module  # type: ignore[assignment]
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._applied: tuple[Terms, ...] | None = ()
        self._mixtures: OrderedDict[Terms, dict[str, Mixture]] = OrderedDict()

    def size(self, lora: Lora) -> int:
        """Bytes it takes here. Checks names and shapes; raises InvalidAdapter."""
        for path, factors in lora.modules.items():
            layer = self._layers.get(path)
            if layer is None:
                raise InvalidAdapter(f"the base has no linear layer {path}", "Was the adapter made for another base?")
            given = (factors.b.shape[0], factors.a.shape[1])
            if given != (layer.out_features, layer.in_features):
                raise InvalidAdapter(
                    f"{path} is {list(given)} in the adapter and {[layer.out_features, layer.in_features]} in the base",
                    "Was the adapter made for another base?",
                )
        shapes = [tensor.shape for factors in lora.modules.values() for tensor in (factors.a, factors.b)]
        return sum(map(math.prod, shapes)) * self._dtype.itemsize

    def load(self, lora: Lora) -> LoraWeights:
        """Checks likewise, and copies."""
        self.size(lora)
        return LoraWeights(
            {
                path: Factors(self._own(_tensor(factors.a)), self._own(_tensor(factors.b).t() * factors.scaling))
                for path, factors in lora.modules.items()
            }
        )

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
        uses = self._uses(wanted, terms, mixture)
        for path, layer in self._layers.items():
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

    def _uses(
        self, stacks: tuple[Terms, ...], terms: Terms, mixture: dict[str, Mixture]
    ) -> dict[tuple[int, ...], torch.Tensor | None]:
        """Columns of a layer → [rows, 1, r] of who uses them. Few layouts differ, so few are made."""
        layouts = {part.columns for part in mixture.values()}
        if all(len(stack) == len(terms) for stack in stacks):
            return dict.fromkeys(layouts)
        member = torch.tensor([[term in stack for term in terms] for stack in stacks], device=self._device)
        return {columns: member[:, list(columns)].unsqueeze(1) for columns in layouts}

    def _own(self, matrix: torch.Tensor) -> torch.Tensor:
        return matrix.to(self._device, self._dtype).contiguous()


@dataclass(frozen=True)
class Mixture:
    """Several adapters' factors in one layer, side by side."""

    factors: Factors
    columns: tuple[int, ...]
    """For each of the r directions, which term of the mixture it belongs to."""


def _tensor(tensor: Tensor) -> torch.Tensor:
    """In single precision, so that the scaling is multiplied in before anything is rounded."""
    return torch.frombuffer(bytearray(tensor.data), dtype=DTYPES[tensor.dtype]).reshape(tensor.shape).float()


def _side_by_side(terms: Terms, path: str) -> Mixture:
    parts = [(index, term, _modules(term)[path]) for index, term in enumerate(terms) if path in _modules(term)]
    columns = tuple(index for index, _, factors in parts for _ in range(factors.a.shape[0]))
    if len(parts) == 1 and parts[0][1].scale == 1:
        return Mixture(parts[0][2], columns)
    a = torch.cat([factors.a for _, _, factors in parts])
    b = torch.cat([factors.b * term.scale for _, term, factors in parts])
    return Mixture(Factors(a, b), columns)


def _modules(term: Term) -> dict[str, Factors]:
    assert isinstance(term.weights, LoraWeights)
    return term.weights.modules

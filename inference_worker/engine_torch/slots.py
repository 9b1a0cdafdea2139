"""Adapters in the linear layers: W'x = Wx + Σ scale · B(Ax), for rows that differ in their adapters.

Every `nn.Linear` of the base becomes a `SlotLinear` by a change of class, so that paths and parameters stay as they
are. Its weights move into a matrix with room for some more rows, and there lie the A factors of adapters, one slot of
consecutive rows each; so one product gives Wx and every Ax. The B factors lie in a second matrix in the same order. A
forward computes the slots up to the last one that its rows use, and a mask says which row uses which.

An adapter is copied into a free slot when it is loaded, beside the forwards of that moment; otherwise when a forward
first needs it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
import torch
from torch import nn
from torch.nn import functional

from genome.lora import Lora, check_places
from genome.places import is_expert
from inference_worker.engine import Terms
from inference_worker.engine_torch.factors import LoraWeights, check_range, copy_all, memory_bytes
from inference_worker.engine_torch.places import Place, Places

log = structlog.get_logger()

ROOM = 64
"""Directions (ranks of adapters, added up) beside a layer's weights. It grows when one stack needs more."""


@dataclass(frozen=True)
class Slot:
    """What one layer computes in the next forwards."""

    weight: torch.Tensor
    """[out + r, in]: the base's rows, and below them A of every slot in use."""
    bias: torch.Tensor | None
    """[out + r]"""
    b: torch.Tensor
    """[r, out]"""
    unused: torch.Tensor | None
    """[rows, 1, r]: which of the r directions each row has no part in; None: all rows use all, at scale 1."""
    scales: torch.Tensor | None
    """[rows, 1, r]; None: 1."""
    alone: bool
    """All rows use all, on a CPU: a single one takes a short cut."""


class SlotLinear(nn.Linear):
    """A linear layer with room for adapters."""

    slot: Slot | None = None
    room: torch.Tensor
    """[out + room, in]; ``weight`` is a view of its first rows."""
    room_bias: torch.Tensor | None
    """[out + room]"""
    b: torch.Tensor
    """[room, out]"""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name in nn.Linear
        slot = self.slot
        if slot is None:
            return functional.linear(input, self.weight, self.bias)
        whole = functional.linear(input, slot.weight, slot.bias)
        if slot.alone and whole.numel() == whole.shape[-1]:
            return _one_row(whole, self.out_features, slot.b)
        output, inner = whole.view(-1, whole.shape[-1]).split_with_sizes((self.out_features, len(slot.b)), 1)
        if slot.unused is not None:
            # Some models flatten [rows, tokens] before a layer; the rows come apart again here.
            rows = inner.view(slot.unused.shape[0], -1, len(slot.b))
            # Set, not multiplied: 0 · inf of an adapter that overflows would reach rows that do not use it.
            rows.masked_fill_(slot.unused, 0)
            if slot.scales is not None:
                rows.mul_(slot.scales)
        return output.addmm_(inner, slot.b).view(*input.shape[:-1], self.out_features)


def _one_row(whole: torch.Tensor, out: int, b: torch.Tensor) -> torch.Tensor:
    """The same for one token on a CPU, where the calls cost more than what they compute."""
    flat = whole.view(-1)
    # oneDNN takes longer to set up a product as thin as this than PyTorch's own loop to compute it.
    torch.backends.mkldnn.enabled = False
    try:
        flat[:out].addmv_(b.t(), flat[out:])
    finally:
        torch.backends.mkldnn.enabled = True
    return whole[..., :out]


@dataclass
class Kind:
    """Layers of one shape and name, such as every q_proj: their factors are copied in one go."""

    paths: list[str]
    """In the order they have in an adapter's file."""
    layers: list[SlotLinear]
    room: torch.Tensor
    """[layers, out + room, in]"""
    b: torch.Tensor
    """[layers, room, out]; no room at first."""
    written: bool = False
    """Any adapter ever had factors for them; else all room is zeros."""


class Slots:
    """The adapters' places in one model."""

    def __init__(self, model: nn.Module) -> None:
        self._layers: dict[str, SlotLinear] = {}
        for path, module in model.named_modules():
            if type(module) is nn.Linear and not is_expert(path):
                module.__class__ = SlotLinear
                self._layers[path] = module  # type: ignore[assignment]
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._places = Places(0)
        self._kinds = self._alike()
        self._applied: tuple[Terms, ...] | None = ()
        self._make_room(ROOM)

    def size(self, lora: Lora) -> int:
        """Bytes it takes here. Checks names and shapes; raises InvalidAdapter."""
        check_places(lora, {path: (each.out_features, each.in_features) for path, each in self._layers.items()})
        check_range(lora, self._dtype)
        return memory_bytes(lora)

    @torch.inference_mode()
    def load(self, lora: Lora) -> LoraWeights:
        """Checks likewise, and fills a slot if one is free. Any thread."""
        self.size(lora)
        weights = LoraWeights(lora)
        if place := self._places.take(weights):
            try:
                self._fill(weights, place)
            except (RuntimeError, MemoryError) as error:  # a forward that needs it tries again
                log.warning("an adapter could not be laid beside the weights yet", reason=str(error))
        return weights

    def open(self, terms: Terms) -> None:
        """A row with these adapters is coming."""
        self._places.pin(_adapters([terms]))

    def close(self, terms: Terms) -> None:
        """It is gone."""
        if self._places.unpin(_adapters([terms])):
            self.apply(())

    def fit(self, stacks: Iterable[Terms]) -> bool:
        """Whether rows with these stacks can share a forward."""
        return sum(adapter.rank for adapter in _adapters(stacks)) <= self._places.size

    def apply(self, stacks: Sequence[Terms]) -> None:
        """Sets every layer for forwards over rows with these stacks, in this order. Without rows: the base alone."""
        wanted = tuple(stacks)
        if wanted == self._applied:
            return
        self._applied = None  # until all layers are set
        adapters = _adapters(wanted)
        if (needed := sum(adapter.rank for adapter in adapters)) > self._places.size:
            self._make_room(1 << (needed - 1).bit_length())
        places = self._places.arrange(adapters)
        for adapter, place in places.items():
            if not place.filled.is_set():
                self._fill(adapter, place)
        columns = max((place.end for place in places.values()), default=0)
        unused, scales = self._mixture(wanted, places, columns)
        touched = {path for adapter in adapters for path in adapter.lora.modules}
        for path, layer in self._layers.items():
            # nn.Module's own way of setting an attribute is ten times as slow.
            vars(layer)["slot"] = _slot(layer, columns, unused, scales) if path in touched else None
        self._applied = wanted

    def _mixture(
        self, stacks: tuple[Terms, ...], places: dict[LoraWeights, Place], columns: int
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """``unused`` and ``scales`` of `Slot`."""
        plain = all(term.scale == 1 for stack in stacks for term in stack)
        all_in_all = columns == sum(place.width for place in places.values()) and all(
            len(stack) == len(places) for stack in stacks
        )
        if plain and all_in_all:
            return None, None
        scales = torch.zeros(len(stacks), 1, columns)
        for row, stack in enumerate(stacks):
            for term in stack:
                place = places[term.weights]  # type: ignore[index]
                scales[row, 0, place.start : place.end] = term.scale
        unused = (scales == 0).to(self._device)
        return unused, None if plain else scales.to(self._device, self._dtype)

    def _fill(self, adapter: LoraWeights, place: Place) -> None:
        """Copies an adapter's factors into its place."""
        try:
            for kind in self._kinds:
                if kind.written or not adapter.lora.modules.keys().isdisjoint(kind.paths):
                    kind.written = True
                    out = kind.layers[0].out_features
                    a, b = kind.room[:, out + place.start : out + place.end], kind.b[:, place.start : place.end]
                    copy_all(adapter.lora, kind.paths, a, b)
        except BaseException:
            place.filled.set()  # first: who waits for it holds the lock that dropping needs
            self._places.drop(adapter)
            raise
        place.filled.set()

    def _make_room(self, size: int) -> None:
        """Gives every layer room for so many directions, keeping what is in them.

        As slow as copying the base, and for a moment with two copies of its largest kind of layer.
        """
        with self._places.lock, torch.no_grad():
            self._places.settle()
            for layer in self._layers.values():
                vars(layer)["slot"] = None
            for kind in self._kinds:
                _grow(kind, size)
            self._places.size = size

    def _alike(self) -> list[Kind]:
        """Layers that are alike, but for the numbers in their paths, without any room yet."""
        found: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
        for path, layer in sorted(self._layers.items()):
            found[re.sub(r"\d+", "", path), layer.weight.shape, layer.bias is None].append(path)
        nothing = torch.empty(0, 0, 0)
        return [Kind(paths, [self._layers[path] for path in paths], nothing, nothing) for paths in found.values()]


def _grow(kind: Kind, size: int) -> None:
    """Moves layers into tensors with more room. What may fail for want of memory comes first."""
    one, held = kind.layers[0], kind.b.shape[1]
    room = one.weight.new_empty(len(kind.layers), one.out_features + size, one.in_features)
    b = one.weight.new_zeros(len(kind.layers), size, one.out_features)
    biases = [None if each.bias is None else each.bias.new_zeros(each.out_features + size) for each in kind.layers]
    for index, (layer, bias) in enumerate(zip(kind.layers, biases, strict=True)):
        rows = layer.out_features + held
        room[index, :rows] = layer.room if held else layer.weight
        room[index, rows:] = 0
        if held:
            b[index, :held] = layer.b
        if bias is not None:
            bias[: layer.out_features] = layer.bias
    for index, (layer, bias) in enumerate(zip(kind.layers, biases, strict=True)):
        layer.weight.data = room[index, : layer.out_features]  # and whatever is tied to it
        if bias is not None:
            layer.bias.data = bias[: layer.out_features]
        vars(layer).update(room=room[index], room_bias=bias, b=b[index])
    kind.room, kind.b = room, b


def _slot(layer: SlotLinear, columns: int, unused: torch.Tensor | None, scales: torch.Tensor | None) -> Slot:
    rows = layer.out_features + columns
    bias = None if layer.room_bias is None else layer.room_bias[:rows]
    return Slot(layer.room[:rows], bias, layer.b[:columns], unused, scales, unused is None and layer.room.is_cpu)


def _adapters(stacks: Iterable[Terms]) -> list[LoraWeights]:
    """The adapters in use, each once."""
    return list(dict.fromkeys(term.weights for stack in stacks for term in stack))  # type: ignore[misc]

"""A linear layer with LoRA in one autograd function: what PEFT's layer computes, in fewer and smaller steps.

PEFT's layer adds its update to the layer's output in four operations and as many arrays, and autograd keeps most of
them. Here the update is added in place, forwards and backwards, and only the layer's input and its projection are kept.
Adapters that are applied beside the one that learns are further columns of the same two products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from daemon.trainers.torch_lora import attention
from genome import lora, tensors
from genome.errors import InvalidAdapter
from genome.training import Beside

ADAPTER = "default"
"""PEFT's name of the adapter that learns."""


def layers(model: PeftModel) -> Iterator[PeftLinear]:
    """PEFT's LoRA layers. Those of some quantised bases are of other classes, and compute as PEFT lets them."""
    return (module for module in model.modules() if isinstance(module, PeftLinear))


def install(model: PeftModel) -> None:
    """Lets a PEFT model of ours compute this way: LoRA on linear layers, without dropout."""
    for layer in layers(model):
        layer.beside = None
        layer.forward = MethodType(_forward, layer)


def apply_beside(model: PeftModel, entries: Sequence[Beside]) -> None:
    """Applies adapters wherever they are, also where nothing learns; they stay as they are."""
    downs: dict[str, list[Tensor]] = {}
    ups: dict[str, list[Tensor]] = {}
    there = {path for path, _ in model.base_model.model.named_modules()}
    for entry in entries:
        for path, factors in lora.read(Path(entry.path)).modules.items():
            if path not in there:
                raise InvalidAdapter(
                    f"{entry.adapter}, which is applied beside, adapts {path}, where the base has no linear layer",
                    lora.ANOTHER_BASE,
                )
            downs.setdefault(path, []).append(torch.from_numpy(tensors.floats(factors.a)).float())
            up = torch.from_numpy(tensors.floats(factors.b)).float()
            ups.setdefault(path, []).append(up * (entry.scale * factors.scaling))
    switch = next(module for module in model.modules() if isinstance(module, LoraLayer))
    for path in downs:
        module = model.base_model.model.get_submodule(path)
        factors = torch.cat(downs[path]).to(model.device), torch.cat(ups[path], dim=1).to(model.device)
        if isinstance(module, PeftLinear):
            module.beside = factors
        else:
            module.register_forward_hook(partial(_add_beside, switch, factors))


def _add_beside(
    switch: LoraLayer, factors: tuple[Tensor, Tensor], _layer: nn.Module, inputs: tuple[Tensor], output: Tensor
) -> Tensor:
    """The output of a layer that nothing learns in, unless all adapters are switched off."""
    if switch.disable_adapters:
        return output
    down, up = (each.to(inputs[0].dtype) for each in factors)
    return output + (inputs[0] @ down.t() @ up.t()).to(output.dtype)


def _forward(layer: Any, x: Tensor) -> Tensor:
    if layer.disable_adapters:
        return layer.base_layer(x)
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    beside, scaling = layer.beside or (None, None), layer.scaling[ADAPTER]
    if type(layer.base_layer) is nn.Linear:
        weight, bias = layer.base_layer.weight, layer.base_layer.bias
        return _LoraLinear.apply(x, weight, bias, down, up, scaling, *beside, attention.needed(x))
    # A quantised layer knows alone how it multiplies.
    return _LoraLinear.apply(x, None, layer.base_layer(x), down, up, scaling, *beside, None)


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + bias + scaling · (x Aᵀ) Bᵀ + (x A₀ᵀ) B₀ᵀ for x [..., in], W [out, in], A [r, in], B [out, r].

    A and B learn, in whatever precision they have; the products are made in x's. W is None where ``bias`` is already
    the layer's output. ``needed`` [k]: the only tokens whose y matters; the others' is 0, with a gradient of zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
        down_beside: Tensor | None,
        up_beside: Tensor | None,
        needed: Tensor | None,
    ) -> Tensor:
        flat, rank = _chosen(x.reshape(-1, x.shape[-1]), needed), down.shape[0]
        down, up = down.to(x.dtype), up.to(x.dtype) * scaling
        if down_beside is not None:
            down, up = torch.cat([down, down_beside.to(x.dtype)]), torch.cat([up, up_beside.to(x.dtype)], dim=1)
        if weight is not None:
            output = functional.linear(flat, weight, bias)
        else:
            output = bias.reshape(-1, bias.shape[-1]).clone(memory_format=torch.contiguous_format)
        projected = flat @ down.t()
        output.addmm_(projected, up.t())
        ctx.save_for_backward(flat, weight, down, up, projected, needed)
        ctx.scaling, ctx.shape, ctx.rank = scaling, x.shape, rank
        return _spread(output, needed, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, down, up, projected, needed = ctx.saved_tensors
        gradient = _chosen(gradient.reshape(-1, gradient.shape[-1]), needed)
        pulled, rank = gradient @ up, ctx.rank
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = gradient @ weight if weight is not None else torch.zeros_like(flat)
            to_x = _spread(to_x.addmm_(pulled, down), needed, ctx.shape[:-1])
        to_down = pulled[:, :rank].t() @ flat
        to_up = (gradient.t() @ projected[:, :rank]) * ctx.scaling
        through = gradient.view(*ctx.shape[:-1], -1) if weight is None else None
        return to_x, None, through, to_down.float(), to_up.float(), None, None, None, None


def _chosen(flat: Tensor, needed: Tensor | None) -> Tensor:
    return flat if needed is None else flat.index_select(0, needed)


def _spread(rows: Tensor, needed: Tensor | None, shape: torch.Size) -> Tensor:
    """Rows [k, d], which nobody else holds, at their places among zeros, [*shape, d]."""
    if needed is not None:
        rows = rows.new_full((shape.numel(), rows.shape[-1]), attention.ROWS.unasked).index_copy_(0, needed, rows)
    # Not a view: a model may write into what it gets here, which autograd does not let it do to a function's view.
    return rows.resize_(*shape, rows.shape[-1])

"""A linear layer with LoRA in one autograd function: what PEFT's layer computes, in fewer and smaller steps.

PEFT's layer adds its update to the layer's output in four operations and as many arrays, and autograd keeps most of
them. Here the update is added in place, forwards and backwards, and only the layer's input and its projection are kept.
Adapters that are applied beside the one that learns are further columns of the same two products.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn import functional

from genome import lora, tensors
from genome.jobs import Beside

ADAPTER = "default"
"""PEFT's name of the adapter that learns."""


def layers(model: PeftModel) -> Iterator[tuple[str, PeftLinear]]:
    """PEFT's LoRA layers, by their path in the base."""
    for path, module in model.base_model.model.named_modules():
        if isinstance(module, PeftLinear):
            yield path, module


def install(model: PeftModel) -> None:
    """Lets a PEFT model of ours compute this way: LoRA on linear layers, without dropout."""
    for _, layer in layers(model):
        layer.beside = None
        layer.forward = MethodType(_forward, layer)


def apply_beside(model: PeftModel, entries: Sequence[Beside]) -> None:
    """Applies adapters wherever the one that learns is; they stay as they are."""
    found = dict(layers(model))
    downs: dict[str, list[Tensor]] = {}
    ups: dict[str, list[Tensor]] = {}
    for entry in entries:
        for path, factors in lora.read(Path(entry.path)).modules.items():
            downs.setdefault(path, []).append(torch.from_numpy(tensors.floats(factors.a)).float())
            ups.setdefault(path, []).append(
                torch.from_numpy(tensors.floats(factors.b)).float() * (entry.scale * factors.scaling)
            )
    for path in downs:
        if path not in found:
            print(f"{path} of an adapter beside is not applied: nothing is trained there", file=sys.stderr)
            continue
        weight = found[path].weight
        found[path].beside = (
            torch.cat(downs[path]).to(weight.device, _computed(weight)),
            torch.cat(ups[path], dim=1).to(weight.device, _computed(weight)),
        )


def _forward(layer: Any, x: Tensor) -> Tensor:
    if layer.disable_adapters:
        return layer.base_layer(x)
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    beside, scaling = layer.beside or (None, None), layer.scaling[ADAPTER]
    if type(layer.base_layer) is nn.Linear:
        return _LoraLinear.apply(x, layer.base_layer.weight, layer.base_layer.bias, down, up, scaling, *beside)
    # A quantised layer knows alone how it multiplies.
    return _LoraLinear.apply(x, None, layer.base_layer(x), down, up, scaling, *beside)


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + bias + scaling · (x Aᵀ) Bᵀ + (x A₀ᵀ) B₀ᵀ for x [..., in], W [out, in], A [r, in], B [out, r].

    A and B learn, in whatever precision they have; the products are made in x's. W is None where ``bias`` is already
    the layer's output.
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
    ) -> Tensor:
        flat, rank = x.reshape(-1, x.shape[-1]), down.shape[0]
        down, up = down.to(x.dtype), up.to(x.dtype) * scaling
        if down_beside is not None:
            down, up = torch.cat([down, down_beside.to(x.dtype)]), torch.cat([up, up_beside.to(x.dtype)], dim=1)
        if weight is not None:
            output = functional.linear(flat, weight, bias)
        else:
            output = bias.reshape(-1, bias.shape[-1]).clone()
        projected = flat @ down.t()
        output.addmm_(projected, up.t())
        ctx.save_for_backward(flat, weight, down, up, projected)
        ctx.scaling, ctx.shape, ctx.rank = scaling, x.shape, rank
        return output.view(*x.shape[:-1], output.shape[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, down, up, projected = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        pulled, rank = gradient @ up, ctx.rank
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = gradient @ weight if weight is not None else torch.zeros_like(flat)
            to_x = to_x.addmm_(pulled, down).view(ctx.shape)
        to_down = pulled[:, :rank].t() @ flat
        to_up = (gradient.t() @ projected[:, :rank]) * ctx.scaling
        through = gradient.view(*ctx.shape[:-1], -1) if weight is None else None
        return to_x, None, through, to_down.float(), to_up.float(), None, None, None


def _computed(weight: Tensor) -> torch.dtype:
    """Of factors beside a layer; one that is quantised has no dtype to compute in."""
    return weight.dtype if weight.is_floating_point() else torch.float32

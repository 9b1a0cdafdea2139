"""mlx-lm's LoRA layer, with adapters applied beside the one that learns, and a switch that turns all of them off."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.lora import LoRALinear

from genome.lora import Factors


class LoraLinear(LoRALinear):
    """x W + scale · (x a) b, a [in, r] and b [r, out], and the same of what lies beside it, frozen."""

    def __init__(self, linear: nn.Module, rank: int, scale: float) -> None:
        outputs, inputs = linear.weight.shape
        if isinstance(linear, nn.QuantizedLinear):
            inputs = inputs * 32 // linear.bits
        super().__init__(inputs, outputs, r=rank, scale=scale)
        self.linear = linear
        self.on = True
        self._beside: list[tuple[mx.array, mx.array]] = []

    def apply_beside(self, factors: Factors, scale: float) -> None:
        down, up = mx.array(factors.a.as_float32()).T, mx.array(factors.b.as_float32()).T
        self._beside = [*self._beside, (down, up * (scale * factors.scaling))]

    def __call__(self, x: mx.array) -> mx.array:
        if not self.on:
            return self.linear(x)
        output = super().__call__(x)
        for down, up in self._beside:
            output = output + ((x @ down) @ up).astype(x.dtype)
        return output

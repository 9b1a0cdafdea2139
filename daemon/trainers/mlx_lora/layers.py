"""mlx-lm's LoRA layer, with adapters applied beside the one that learns, and a switch that turns all of them off."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.lora import LoRALinear

from genome import tensors
from genome.lora import Factors
from genome.tensors import Tensor


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
        down, up = array(factors.a).T, array(factors.b).T
        self._beside = [*self._beside, (down, up * (scale * factors.scaling))]

    def __call__(self, x: mx.array) -> mx.array:
        if not self.on:
            return self.linear(x)
        output = super().__call__(x)
        for down, up in self._beside:
            output = output + ((x @ down) @ up).astype(x.dtype)
        return output


def array(tensor: Tensor) -> mx.array:
    """As float32."""
    return mx.array(tensors.floats(tensor).astype(np.float32))

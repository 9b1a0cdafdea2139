"""One adapter's factors in memory, as its file has them, and how they are copied to where they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from genome.lora import Lora
from genome.tensors import Tensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Factors:
    """One layer's update, on the CPU."""

    a: torch.Tensor
    """[r, in]"""
    b: torch.Tensor
    """[out, r]"""
    scaling: float


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One adapter, by module path. Views of the buffer its file was read into."""

    modules: Mapping[str, Factors]
    digest: str

    @cached_property
    def rank(self) -> int:
        """Directions it takes: its largest rank."""
        return max(factors.a.shape[0] for factors in self.modules.values())

    @property
    def memory_bytes(self) -> int:
        return sum(factors.a.nbytes + factors.b.nbytes for factors in self.modules.values())


def lora_weights(lora: Lora) -> LoraWeights:
    return LoraWeights(
        {path: Factors(_tensor(each.a), _tensor(each.b), each.scaling) for path, each in lora.modules.items()},
        lora.digest,
    )


def copy(factors: Factors, a: torch.Tensor, b: torch.Tensor) -> None:
    """Copies into ``a`` [≥ r, in] and ``b`` [≥ r, out], the scaling multiplied into b; further rows become 0."""
    rank = factors.a.shape[0]
    a[:rank].copy_(factors.a)
    source, target = factors.b, b[:rank]
    if source.dtype == target.dtype and target.device == source.device:
        # numpy transposes three times as fast, and knows no bf16: the bits will do.
        bits = BITS[source.itemsize]
        np.copyto(target.view(bits).numpy(), source.view(bits).numpy().T)
        if factors.scaling != 1:
            target.mul_(factors.scaling)
    else:  # scaled before anything is rounded
        target.copy_((source.float() * factors.scaling).t())
    if rank < a.shape[0]:
        a[rank:] = 0
        b[rank:] = 0


def _tensor(tensor: Tensor) -> torch.Tensor:
    flat = np.frombuffer(tensor.data, dtype=np.uint8)
    if not flat.flags.writeable:  # torch warns of what it could write to
        flat = flat.copy()
    return torch.from_numpy(flat).view(DTYPES[tensor.dtype]).view(tensor.shape)

"""One adapter's factors in memory, as its file has them, and how they are copied to where they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from genome.errors import InvalidAdapter
from genome.lora import Lora
from genome.tensors import ITEM_BYTES, Tensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""numpy has no bf16. It copies bits as well."""


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One adapter, known by what it is and not by what it holds."""

    lora: Lora

    @property
    def digest(self) -> str:
        return self.lora.identity

    @cached_property
    def rank(self) -> int:
        """Directions it takes: its largest rank."""
        return self.lora.rank

    @property
    def memory_bytes(self) -> int:
        return memory_bytes(self.lora)


def memory_bytes(lora: Lora) -> int:
    return sum(len(tensor.data) for factors in lora.modules.values() for tensor in (factors.a, factors.b))


def check_range(lora: Lora, dtype: torch.dtype) -> None:
    """Raises InvalidAdapter where a factor would become infinite in ``dtype``: 0 · inf would reach other rows."""
    largest = torch.finfo(dtype).max
    for path, factors in lora.modules.items():
        for tensor in (factors.a, factors.b):
            held = DTYPES[tensor.dtype]
            if torch.finfo(held).max > largest and float(_matrix(tensor).abs().max()) > largest:
                raise InvalidAdapter(f"{path} has values too large for {str(dtype).removeprefix('torch.')}")


def copy_all(lora: Lora, paths: Sequence[str], a: torch.Tensor, b: torch.Tensor) -> None:
    """Copies the factors of modules of one shape into ``a`` [paths, ≥ r, in] and ``b`` [paths, ≥ r, out].

    The scaling is multiplied into a. Rows for which there is nothing become 0.
    """
    parts = [lora.modules.get(path) for path in paths]
    whole = [part for part in parts if part is not None]
    if len(whole) == len(parts) and len({(part.scaling, part.rank) for part in whole}) == 1:
        sources = [_stacked(lora, tensors) for tensors in ([part.a for part in whole], [part.b for part in whole])]
        if sources[0] is not None and sources[1] is not None:
            _copy(sources[0], sources[1], whole[0].scaling, a, b)
            return
    for index, part in enumerate(parts):
        if part is None:
            a[index] = 0
            b[index] = 0
        else:
            _copy(_matrix(part.a), _matrix(part.b), part.scaling, a[index], b[index])


def _copy(a: torch.Tensor, b: torch.Tensor, scaling: float, to_a: torch.Tensor, to_b: torch.Tensor) -> None:
    """From ``a`` [..., r, in] and ``b`` [..., out, r]."""
    rank = a.shape[-2]
    source, target = to_a[..., :rank, :], to_b[..., :rank, :]
    if a.dtype == source.dtype and source.is_cpu:
        torch.mul(a, scaling, out=source)
    else:  # scaled before anything is rounded
        source.copy_(a.float() * scaling)
    if b.dtype == target.dtype and target.is_cpu:  # numpy transposes three times as fast
        bits = BITS[b.itemsize]
        np.copyto(target.view(bits).numpy(), b.view(bits).numpy().swapaxes(-1, -2))
    else:
        target.copy_(b.transpose(-1, -2))
    if rank < to_a.shape[-2]:
        to_a[..., rank:, :] = 0
        to_b[..., rank:, :] = 0


def _stacked(lora: Lora, tensors: Sequence[Tensor]) -> torch.Tensor | None:
    """Matrices [n, ...] as one, if they lie in their file at equal distances, as those of equal layers do."""
    first = tensors[0]
    steps = {after.start - before.start for before, after in pairwise(tensors)} or {0}
    size = ITEM_BYTES[first.dtype]
    if lora.buffer is None or len(steps) > 1 or min(steps) < 0 or first.start % size or first.start < 0:
        return None
    if any((tensor.dtype, tensor.shape) != (first.dtype, first.shape) for tensor in tensors):
        return None
    step = steps.pop()
    rows, columns = first.shape
    bits = np.ndarray((len(tensors), rows, columns), f"i{size}", lora.buffer, first.start, (step, columns * size, size))
    return torch.from_numpy(bits).view(DTYPES[first.dtype]) if step % size == 0 else None


def _matrix(tensor: Tensor) -> torch.Tensor:
    flat = np.frombuffer(tensor.data, dtype=np.uint8)
    if not flat.flags.writeable or flat.ctypes.data % 8:  # torch warns of the one and refuses the other
        flat = flat.copy()
    return torch.from_numpy(flat).view(DTYPES[tensor.dtype]).view(tensor.shape)

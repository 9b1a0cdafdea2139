"""safetensors files read flat: one read into one buffer, tensors are views of it.

Format: 8 bytes little-endian header length, a JSON header of name → dtype, shape, data_offsets, then the data without
gaps (huggingface/safetensors, README). The library's own reader copies tensor by tensor, and in numpy knows no bf16.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import xxhash

from genome.errors import InvalidAdapter

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
INFINITY = {"F64": 0x7FF0 << 48, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}
"""Bits of +inf. Every larger signed pattern is not a number; with the sign bit the same holds of the unsigned ones."""
Size = Annotated[int, msgspec.Meta(ge=0)]
LARGEST_HEADER = 100_000_000


class Entry(msgspec.Struct):
    """What the header says of one tensor."""

    dtype: Literal["F64", "F32", "F16", "BF16"]
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]


HEADER = msgspec.json.Decoder(dict[str, msgspec.Raw])
ENTRY = msgspec.json.Decoder(Entry)


class Tensor(NamedTuple):
    """A matrix as raw little-endian bytes, because numpy has no bf16. ``dtype`` is safetensors' name: F32, BF16 …"""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview
    start: int = -1
    """Where ``data`` lies in its file; -1: in none."""

    def transposed(self) -> Tensor:
        item = np.dtype(f"V{ITEM_BYTES[self.dtype]}")
        flipped = np.frombuffer(self.data, dtype=item).reshape(self.shape).T
        return Tensor(self.dtype, self.shape[::-1], np.ascontiguousarray(flipped).tobytes())

    def is_finite(self) -> bool:
        return _finite(self.dtype, self.data)


@dataclass(frozen=True)
class TensorFile:
    """One safetensors file in memory."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    buffer: memoryview
    """The whole file."""

    @property
    def is_finite(self) -> bool:
        kinds = {tensor.dtype for tensor in self.tensors.values()}
        if len(kinds) == 1:
            length = int.from_bytes(self.buffer[:8], "little")
            return _finite(kinds.pop(), self.buffer[8 + length :])
        return all(tensor.is_finite() for tensor in self.tensors.values())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.buffer).hexdigest()

    @property
    def xxh3(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.buffer)


def read(path: Path) -> TensorFile:
    """Reads a file whole. Raises InvalidAdapter if it is not safetensors to the last byte."""
    try:
        with path.open("rb", buffering=0) as stream:
            held = np.empty(os.fstat(stream.fileno()).st_size, dtype=np.uint8)
            buffer, done = memoryview(held.data), 0
            while done < len(buffer):
                count = stream.readinto(buffer[done:])
                if not count:
                    raise InvalidAdapter(f"{path} ended while it was read", "Is it still being written?")
                done += count
    except (OSError, MemoryError) as error:
        raise InvalidAdapter(f"{path} cannot be read: {error!r}") from error
    try:
        return _parsed(buffer)
    except (ValueError, RecursionError) as error:
        raise InvalidAdapter(f"{path} cannot be read as safetensors: {error}", "Is the copy complete?") from error


def shapes(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of every tensor of a file, of any dtype; reads the header alone. ValueError: no safetensors."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError("its header is not complete")
        header = msgspec.json.decode(stream.read(length))
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}


def floats(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Its values as a matrix: in double precision where it has that, else in single, which holds each exactly."""
    if tensor.dtype == "BF16":  # the upper half of a single
        values = (np.frombuffer(tensor.data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(tensor.data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[tensor.dtype])
    return values.astype(np.float64 if tensor.dtype == "F64" else np.float32).reshape(tensor.shape)


def _parsed(buffer: memoryview) -> TensorFile:
    length = int.from_bytes(buffer[:8], "little")
    if len(buffer) < 8 or length > min(LARGEST_HEADER, len(buffer) - 8):
        raise ValueError("its header is not complete")
    header = HEADER.decode(buffer[8 : 8 + length])
    metadata = msgspec.convert(msgspec.json.decode(header.pop("__metadata__", b"{}")), dict[str, str])
    data, offset = buffer[8 + length :], 8 + length
    spans, tensors = [], {}
    for name, raw in header.items():
        entry = ENTRY.decode(raw)
        start, end = entry.data_offsets
        if math.prod(entry.shape) * ITEM_BYTES[entry.dtype] != end - start:
            raise ValueError(f"tensor {name} is not as long as its shape says")
        spans.append((start, end))
        tensors[name] = Tensor(entry.dtype, entry.shape, data[start:end], offset + start)
    covered = 0
    for start, end in sorted(spans):
        if start != covered:
            raise ValueError("its tensors overlap or leave gaps")
        covered = end
    if covered != len(data):
        raise ValueError(f"it holds {len(data)} bytes of data where its header says {covered}")
    return TensorFile(tensors, metadata, buffer)


def _finite(dtype: str, data: bytes | memoryview) -> bool:
    """Whether no exponent is all ones: two maxima instead of a test of every value."""
    size, infinity = ITEM_BYTES[dtype], INFINITY[dtype]
    signed = np.frombuffer(data, dtype=f"<i{size}")
    if not len(signed):
        return True
    sign = 1 << (8 * size - 1)
    return bool(signed.max() < infinity and signed.view(f"<u{size}").max() < sign + infinity)

"""What a base is made of, as far as the memory of a training goes: read without loading it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genome import bases, places
from genome.errors import InvalidConfig

FLOATS = ("F64", "F32", "F16", "BF16")
LARGEST_HEADER = 100_000_000
"""Bytes."""


@dataclass(frozen=True)
class Shape:
    """What a base is made of, as far as memory goes. Sizes are numbers, not bytes, unless the name says so."""

    floats: int
    """Weights that lie on disk in a floating type."""
    packed_bytes: int
    """Quantised weights as they lie on disk."""
    linear: int
    """Weights of the decoder's linear layers, among the floats."""
    factors: int
    """Rows and columns of all the decoder's linear layers added up: a LoRA of rank 1."""
    layers: int
    hidden: int
    intermediate: int
    """Of the experts that one token goes through, together."""
    heads: int
    query: int
    """Heads times their size."""
    vocabulary: int

    @property
    def kept(self) -> int:
        """Numbers that one layer keeps for a token on the way forward, without the adapter's.

        Two inputs and two outputs of norms; queries, keys and values before and after the rotation and what attention
        makes of them; three products of the feed-forward network and its gate.
        """
        return 4 * self.hidden + 6 * self.query + 4 * self.intermediate


def of(base: Path) -> Shape:
    """Of a model directory, from config.json and the headers of its weights. Raises InvalidConfig where one cannot be
    read."""
    try:
        outer = json.loads((base / "config.json").read_bytes())
        config = {**outer, **(outer.get("text_config") or {})}
        tensors = [tensor for file in bases.weight_files(base) for tensor in _headers(file)]
        return _shape(config, tensors)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidConfig(f"the size of the base at {base} cannot be told: {error!r}") from error


def _shape(config: dict[str, Any], tensors: list[tuple[str, str, list[int], int]]) -> Shape:
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    query = heads * (config.get("head_dim") or hidden // heads)
    keys = query * (config.get("num_key_value_heads") or heads) // heads
    experts = config.get("num_experts_per_tok") or 1
    intermediate = experts * (config.get("moe_intermediate_size") or config.get("intermediate_size") or 4 * hidden)
    floats = [(name, sizes) for name, dtype, sizes, _ in tensors if dtype in FLOATS]
    packed = sum(length for _, dtype, _, length in tensors if dtype not in FLOATS)
    named = {
        name: sizes for name, sizes in floats if len(sizes) == 2 and ".layers." in name and name.endswith(".weight")
    }
    linear = list(named.values())
    if linear and not packed:
        factors = sum(sum(sizes) for name, sizes in named.items() if not places.is_expert(name))
    else:  # as every decoder has them; those of a quantised one do not show their sizes
        factors = layers * (2 * (hidden + query) + 2 * (hidden + keys) + 3 * (hidden + intermediate))
    return Shape(
        floats=sum(math.prod(sizes) for _, sizes in floats),
        packed_bytes=packed,
        linear=sum(map(math.prod, linear)),
        factors=factors,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        query=query,
        vocabulary=config["vocab_size"],
    )


def _headers(file: Path) -> Iterator[tuple[str, str, list[int], int]]:
    """Name, type, sizes and bytes of every tensor; the data is not read."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"{file.name} is no safetensors file")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, entry["dtype"], entry["shape"], entry["data_offsets"][1] - entry["data_offsets"][0]

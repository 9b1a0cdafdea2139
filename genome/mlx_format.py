"""What mlx-lm reads: adapters as directories of its own, and a base's config under the names it knows.

mlx-lm has one rank and one scale for a whole adapter (`lora_parameters`), and names the layers it lays a LoRA on by
``keys``: paths within each of the last ``num_layers`` blocks, or within the model (`mlx_lm.tuner.utils`,
`linear_to_lora_layers`). `genome.lora` reads such directories.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import serialize

from genome import files
from genome.errors import InvalidAdapter
from genome.lora import CONFIG, MLX_WEIGHTS, Factors, Lora, commonest, specification
from genome.tensors import Tensor, floats

BLOCK = re.compile(r"(?:.*\.)?layers\.(\d+)\.(.+)")
"""The path of a module in a block, as the architectures name it that adapters are exchanged for."""


def write(directory: Path, lora: Lora, layers: int | None = None) -> None:
    """Writes ``lora`` into an existing directory, as ``mlx_lm.load(base, adapter_path=directory)`` takes it.

    Smaller ranks are filled up with zeros, and a scaling that differs from the commonest is multiplied into B; so what
    is computed stays the same. Where that leaves the range of numbers, InvalidAdapter is raised. ``layers``: how many
    blocks the base has; where that is known, modules that are the same in all the last blocks are named as
    mlx-lm's own trainer names them.
    """
    rank, scale = lora.rank, _scale(lora)
    tensors = {}
    for module, factors in lora.modules.items():
        a, b = _fitted(module, factors, rank, scale)
        tensors[f"{module}.lora_a"], tensors[f"{module}.lora_b"] = a.transposed(), b.transposed()
    specified = {name: specification(tensor) for name, tensor in tensors.items()}
    files.put(directory / MLX_WEIGHTS, serialize(specified, {"format": "mlx"}))
    blocks, keys = _named(list(lora.modules), layers)
    config = {
        "fine_tune_type": "lora",
        "num_layers": blocks,
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys},
    }
    files.put(directory / CONFIG, f"{json.dumps(config, indent=1, sort_keys=True)}\n".encode())


def config(base: Path) -> dict[str, Any]:
    """What mlx-lm must be told beside a base's config (``model_config``): ``rope_parameters`` under the names it reads.

    transformers 5 writes these; without the older names mlx-lm takes its defaults (``rope_theta`` 10000) and computes
    another model without a word.
    """
    return _older_names(json.loads((base / "config.json").read_bytes()))


def _older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters") or {}
    older = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = rope
    if isinstance(config.get("text_config"), dict):
        older["text_config"] = config["text_config"] | _older_names(config["text_config"])
    return {name: value for name, value in older.items() if name == "text_config" or config.get(name) is None}


def _scale(lora: Lora) -> float:
    """The commonest; one that is 0 cannot be multiplied up to another."""
    scalings = [factors.scaling for factors in lora.modules.values()]
    return float(commonest([each for each in scalings if each] or scalings))


def _fitted(module: str, factors: Factors, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank] with the same product at ``scale``."""
    a, b = factors.a, factors.b
    if factors.scaling != scale:
        b = _single(module, floats(b).astype(np.float64) * (factors.scaling / scale))
    if (missing := rank - factors.rank) > 0:
        a = _single(module, np.pad(floats(a), ((0, missing), (0, 0))))
        b = _single(module, np.pad(floats(b), ((0, 0), (0, missing))))
    if "F64" in (a.dtype, b.dtype):  # which MLX has on no accelerator
        a, b = _single(module, floats(a)), _single(module, floats(b))
    return a, b


def _single(module: str, values: np.ndarray[Any, Any]) -> Tensor:
    with np.errstate(over="ignore"):
        tensor = Tensor("F32", values.shape, values.astype(np.float32).tobytes())
    if not tensor.is_finite():
        raise InvalidAdapter(
            f"{module} cannot be written for mlx-lm: at the one scale it has for all layers, values are too large",
            "Export it in PEFT's format",
        )
    return tensor


def _named(modules: Sequence[str], layers: int | None) -> tuple[int, list[str]]:
    """``num_layers`` and ``keys``. Whole paths name any set of modules; mlx-lm looks for them in the whole model."""
    found: dict[int, set[str]] = {}
    for module in modules:
        if match := BLOCK.fullmatch(module):
            found.setdefault(int(match[1]), set()).add(match[2])
    alike = len(set(map(frozenset, found.values()))) == 1 and sum(map(len, found.values())) == len(modules)
    if layers is not None and alike and sorted(found) == list(range(layers - len(found), layers)):
        return len(found), sorted(found[layers - 1])
    return len(found), sorted(modules)

"""LoRA weights on disk: PEFT directories, mlx-lm directories and single safetensors files, read into one form.

Formats: PEFT's `adapter_config.json` + `adapter_model.safetensors` (factors A [r, in], B [out, r]); mlx-lm's
`adapter_config.json` + `adapters.safetensors` (factors lora_a [in, r], lora_b [r, out], where scale = alpha / r).
Only safetensors are read; nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import TensorSpec, serialize

from genome import files, tensors
from genome.errors import InvalidAdapter
from genome.tensors import Tensor, TensorFile

PEFT_WEIGHTS = "adapter_model.safetensors"
MLX_WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"
ANOTHER_BASE = "Was the adapter made for another base?"
"""What to try where an adapter adapts what a base does not have."""
NONSENSE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, re.error)
"""What reading a config raises that holds something else than its format says."""
PEFT_KEY = ("base_model.model.", ".weight", "AB")
MLX_KEY = ("", "", "ab")


@dataclass(frozen=True)
class Digests:
    """What a manifest says of a weights file."""

    sha256: str
    xxh3: str
    """128 bits, hex: thirty times as fast to check. It shows damage, not forgery; the manifest beside it could be."""


@dataclass(frozen=True)
class Factors:
    """One module's update: W' = W + scaling · B A, with A [r, in] and B [out, r]."""

    a: Tensor
    b: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class Lora:
    """An adapter's weights by module path, as in the base's ``named_modules``. ``digest``: of the weights file."""

    modules: Mapping[str, Factors]
    digest: str
    buffer: memoryview | None = None
    """The file, where the factors are views of it at their ``start``."""

    @property
    def rank(self) -> int:
        return max(factors.rank for factors in self.modules.values())

    @cached_property
    def identity(self) -> str:
        """What it computes, as a hash: the weights and the scalings, which the weights file does not hold."""
        scalings = sorted((path, factors.scaling) for path, factors in self.modules.items())
        return hashlib.sha256(f"{self.digest}{scalings}".encode()).hexdigest()


def digests(path: Path) -> Digests:
    """Both digests of a weights file."""
    file = tensors.read(path)
    return Digests(file.sha256, file.xxh3)


def read(path: Path, rank: int | None = None, alpha: float | None = None, known: Digests | None = None) -> Lora:
    """Reads a PEFT directory, an mlx-lm directory or one safetensors file, or raises InvalidAdapter saying why not.

    A single file carries its config in the header metadata (``lora_adapter_metadata`` or ``r`` and ``lora_alpha``), or
    ``rank`` and ``alpha`` say it. Checked: complete pairs, fitting ranks, finite values, no part that would be ignored,
    and the digest where it is ``known``.
    """
    weights, config = _locate(path)
    file = tensors.read(weights)
    if known is not None and file.xxh3 != known.xxh3:
        raise InvalidAdapter(f"{weights} has changed since it was made: its xxh3 is not {known.xxh3[:12]}…")
    if not file.tensors:
        raise InvalidAdapter(f"{weights} holds no tensors")
    try:
        if weights == path:
            config = _single_file_config(path, file, rank, alpha)
        if "fine_tune_type" in config or any(name.endswith((".lora_a", ".lora_b")) for name in file.tensors):
            modules = _from_mlx(weights, file.tensors, config)
        else:
            modules = _from_peft(weights, file.tensors, config)
    except NONSENSE as error:
        raise InvalidAdapter(f"the config of {path} makes no sense: {error!r}", "Was it edited by hand?") from error
    if not file.is_finite:
        name = next(name for name, tensor in file.tensors.items() if not tensor.is_finite())
        raise InvalidAdapter(f"{weights}: {name} has values that are not finite")
    return Lora(modules, known.sha256 if known is not None else file.sha256, file.buffer)


def check_places(lora: Lora, places: Mapping[str, tuple[int, int]]) -> None:
    """Raises InvalidAdapter unless every update finds its linear layer; ``places``: path → (out, in)."""
    for path, factors in lora.modules.items():
        place = places.get(path)
        if place is None:
            raise InvalidAdapter(f"the base has no linear layer {path}", ANOTHER_BASE)
        given = (factors.b.shape[0], factors.a.shape[1])
        if given != place:
            raise InvalidAdapter(
                f"{path} is {list(given)} in the adapter and {list(place)} in the base",
                ANOTHER_BASE,
            )


def write_peft(directory: Path, lora: Lora, base: str) -> None:
    """Writes ``lora`` into an existing directory in PEFT's format, as PEFT, vLLM, SGLang and LoRAX load it.

    The caller builds the directory aside (`files.new_directory`), which syncs what is in it.
    """
    specified = {}
    for module, factors in lora.modules.items():
        for name, tensor in (("A", factors.a), ("B", factors.b)):
            specified[f"base_model.model.{module}.lora_{name}.weight"] = specification(tensor)
    files.put(directory / PEFT_WEIGHTS, serialize(specified, {"format": "pt"}))
    ranks = {module: factors.rank for module, factors in lora.modules.items()}
    alphas = {module: factors.scaling * factors.rank for module, factors in lora.modules.items()}
    rank, alpha = commonest(list(ranks.values())), commonest(list(alphas.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(module)}$": r for module, r in ranks.items() if r != rank},
        "alpha_pattern": {f"^{re.escape(module)}$": a for module, a in alphas.items() if a != alpha},
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted({module.rpartition(".")[2] for module in lora.modules}),
    }
    files.put(directory / CONFIG, f"{json.dumps(config, indent=1, sort_keys=True)}\n".encode())


def _locate(path: Path) -> tuple[Path, dict[str, Any]]:
    if path.is_file() and path.suffix == ".safetensors":
        return path, {}
    if not path.is_dir():
        raise InvalidAdapter(f"{path} is no adapter", "Give a PEFT or mlx-lm directory, or a .safetensors file")
    for name in (PEFT_WEIGHTS, MLX_WEIGHTS):
        if (path / name).is_file():
            break
    else:
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:6]) or "nothing"
        raise InvalidAdapter(f"{path} has no {PEFT_WEIGHTS} and no {MLX_WEIGHTS}; it holds {found}")
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidAdapter(f"{path / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise InvalidAdapter(f"{path / CONFIG} is not a JSON object")
    return path / name, config


def _single_file_config(path: Path, file: TensorFile, rank: int | None, alpha: float | None) -> dict[str, Any]:
    metadata = file.metadata
    config: dict[str, Any] = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    config |= {key: json.loads(metadata[key]) for key in ("r", "lora_alpha") if key in metadata}
    if rank is not None:
        config["r"] = rank
    if alpha is not None:
        config["lora_alpha"] = alpha
    if "r" not in config or "lora_alpha" not in config:
        raise InvalidAdapter(f"{path} does not say its rank and alpha", "Give --rank and --alpha")
    return config


def _from_peft(path: Path, found: Mapping[str, Tensor], config: dict[str, Any]) -> dict[str, Factors]:
    _refuse_unsupported(path, config)
    pairs = _pairs(path, found, PEFT_KEY)
    plain = float(config.get("r", 8)), float(config.get("lora_alpha", 8))
    ranks, alphas = config.get("rank_pattern"), config.get("alpha_pattern")
    modules = {}
    for module, pair in pairs.items():
        rank, alpha = plain
        if ranks or alphas:
            rank, alpha = _pattern(ranks, module, rank), _pattern(alphas, module, alpha)
        scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        modules[module] = _factors(path, module, pair["A"], pair["B"], scaling, rank)
    return modules


def _from_mlx(path: Path, found: Mapping[str, Tensor], config: dict[str, Any]) -> dict[str, Factors]:
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise InvalidAdapter(f"{path} is a {kind} fine-tune", "Only LoRA adapters are served")
    parameters = config.get("lora_parameters", {})
    scale = parameters.get("scale") if "lora_parameters" in config else config["lora_alpha"] / config["r"]
    if scale is None:
        raise InvalidAdapter(f"{path.parent / CONFIG} does not say lora_parameters.scale")
    pairs = _pairs(path, found, MLX_KEY)
    modules = {}
    for module, pair in pairs.items():
        a, b = pair["A"].transposed(), pair["B"].transposed()
        modules[module] = _factors(path, module, a, b, scale, a.shape[0])
    return modules


def _pairs(path: Path, found: Mapping[str, Tensor], key: tuple[str, str, str]) -> dict[str, dict[str, Tensor]]:
    """Module → its two factors, by names as ``key`` says: what they begin with, how they end, letters between."""
    prefix, suffix, letters = key
    endings = {f".lora_{letter}{suffix}": letter.upper() for letter in letters}
    length = len(f".lora_A{suffix}")
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in found.items():
        module, factor = name[len(prefix) : -length], endings.get(name[-length:])
        if not (module and factor and name.startswith(prefix)):
            raise InvalidAdapter(
                f"{path} holds {name}, which is no LoRA factor of a linear layer",
                "Train with LoRA on linear layers only",
            )
        pairs.setdefault(module, {})[factor] = tensor
    for module, pair in pairs.items():
        if len(pair) != 2:
            raise InvalidAdapter(f"{path} has only one of the two factors of {module}")
    return pairs


def _factors(path: Path, module: str, a: Tensor, b: Tensor, scaling: float, rank: float) -> Factors:
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or a.shape[0] != rank or rank < 1:
        raise InvalidAdapter(
            f"{path}: {module} has A {list(a.shape)} and B {list(b.shape)} where rank {rank:g} was declared"
        )
    if not math.isfinite(scaling):
        raise InvalidAdapter(f"{path}: the scaling of {module} is not finite")
    return Factors(a, b, scaling)


def _refuse_unsupported(path: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type", "LORA") != "LORA":
        raise InvalidAdapter(f"{path} is a {config['peft_type']} adapter", "Only LoRA adapters are served")
    if config.get("bias", "none") != "none":
        raise InvalidAdapter(f"{path} trains biases (bias = {config['bias']!r})", 'Train with bias = "none"')
    for feature in ("use_dora", "modules_to_save", "trainable_token_indices", "layer_replication", "fan_in_fan_out",
                    "target_parameters", "megatron_config"):  # fmt: skip
        if config.get(feature):
            raise InvalidAdapter(f"{path} uses {feature}, which is not served", f"Train without {feature}")


def _pattern(patterns: dict[str, Any] | None, module: str, default: float) -> float:
    """PEFT's rule: a pattern matches the module's path, or its end after a dot."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return float(default)


def specification(tensor: Tensor) -> TensorSpec:
    """What `safetensors.serialize` takes. It holds an address into ``tensor.data``, which must outlive it."""
    dtype = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}[tensor.dtype]
    address = np.frombuffer(tensor.data, dtype=np.uint8).ctypes.data
    return TensorSpec(dtype=dtype, shape=list(tensor.shape), data_ptr=address, data_len=len(tensor.data))


def commonest(values: list[Any]) -> Any:
    """The value there is most often; of several the least."""
    return max(sorted(set(values)), key=values.count)

"""Base models: where one lies, which one it is, and in which precision its weights are."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from genome.errors import InvalidConfig

SAMPLES_PER_FILE = 16
SAMPLE_BYTES = 1 << 16
USUAL_WIDTH = 2048
"""Hidden size where a config does not say it."""
VOLATILE_CONFIG_KEYS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "_from_model_config")


class Quantisation(BaseModel):
    """How a model's weights are kept, as its config.json says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "none"
    """none, mlx, or transformers' ``quant_method``: bitsandbytes, gptq, awq …"""
    bits: int | None = None
    """Of a weight, where one number counts for most layers."""
    group_size: int | None = None
    """Weights that share a scale."""
    mode: str = ""
    """Where a method has several: affine, mxfp4 … of mlx; nf4, fp4, int8 of bitsandbytes."""

    def __str__(self) -> str:
        if self.method == "none":
            return "not quantised"
        bits = f"{self.bits}-bit " if self.bits else ""
        group = f", groups of {self.group_size}" if self.group_size and self.group_size > 0 else ""
        return f"{bits}{self.method}{f' {self.mode}' if self.mode else ''}{group}"


LOADED_IN_FOUR_BITS = Quantisation(method="bitsandbytes", bits=4, mode="nf4")
"""What Unsloth makes of 16-bit weights as it reads them, where there are bitsandbytes and a GPU."""


class Described(BaseModel):
    """A model directory: which weights, in which precision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    fingerprint: str
    """Of this very directory; a quantised copy's differs from the base's."""
    quantisation: Quantisation

    def __str__(self) -> str:
        return f"{self.path} (fingerprint {self.fingerprint[:12]}…, {self.quantisation})"


def describe(path: Path) -> Described:
    """What there is to say of a model directory, in milliseconds."""
    return Described(path=str(path), fingerprint=fingerprint(path), quantisation=quantisation(path))


def quantisation(path: Path) -> Quantisation:
    """From config.json; not quantised where that says nothing."""
    config = read_config(path)
    if said := config.get("quantization"):
        mode = said.get("mode", "affine")
        return Quantisation(method="mlx", bits=said.get("bits"), group_size=said.get("group_size"), mode=mode)
    text = config.get("text_config") or {}
    said = config.get("quantization_config") or text.get("quantization_config")
    if not said:
        return Quantisation()
    method = str(said.get("quant_method", "unknown"))
    if method == "bitsandbytes":
        four = bool(said.get("load_in_4bit"))
        mode = str(said.get("bnb_4bit_quant_type", "fp4")) if four else "int8"
        return Quantisation(method=method, bits=4 if four else 8, mode=mode)
    return Quantisation(method=method, bits=said.get("bits"), group_size=said.get("group_size"))


def dtype(path: Path) -> str:
    """What its weights are stored in, as transformers calls it; empty where its config does not say."""
    config = read_config(path)
    known = (each.get(key) for each in (config.get("text_config") or {}, config) for key in ("dtype", "torch_dtype"))
    return str(next((value for value in known if value), ""))


def learning_rate(path: Path) -> float:
    """A peak for LoRA with alpha = rank and Adam: 0.5 ÷ hidden size, since what a step changes adds up over the width
    (arXiv:2203.03466). 2e-3 for the smallest models, 1.2e-4 for one of 4096."""
    config = read_config(path)
    hidden = (config.get("text_config") or config).get("hidden_size") or config.get("n_embd") or USUAL_WIDTH
    return round(0.5 / hidden, 6)


def layers(path: Path) -> int | None:
    """How many blocks a base has; None where the directory is gone or does not say it."""
    config = read_config(path)
    found = (config.get("text_config") or config).get("num_hidden_layers")
    return found if isinstance(found, int) else None


def read_config(path: Path) -> dict[str, Any]:
    """config.json; empty where there is none."""
    try:
        config = json.loads((path / "config.json").read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{path / 'config.json'} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise InvalidConfig(f"{path / 'config.json'} is not a JSON object")
    return config


def resolve(base: str) -> Path:
    """The directory of ``base``: a local path as it is, else a hub id, downloaded once into the hub's cache."""
    path = Path(base).expanduser()
    if path.is_dir():
        return _checked(path.resolve())
    if path.is_absolute() or base.startswith((".", "~")) or base.count("/") != 1:
        raise InvalidConfig(
            f"base model {base!r} does not exist",
            "Give a local Hugging Face model directory, or a hub id such as HuggingFaceTB/SmolLM2-360M-Instruct",
        )
    from huggingface_hub import snapshot_download  # slow to import, and only hub ids need it

    try:
        return _checked(Path(snapshot_download(base, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"])))
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"base model {base!r} is no directory here and could not be had from the hub: {str(error).splitlines()[0]}",
            "Check the spelling and the network, or give a local model directory",
        ) from error


def _checked(path: Path) -> Path:
    if not (path / "config.json").is_file():
        raise InvalidConfig(f"{path} is no model directory: it has no config.json")
    if not weight_files(path):
        raise InvalidConfig(f"{path} has no *.safetensors", "Convert the model: only safetensors are read")
    return path


def weight_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors"))


def fingerprint(path: Path) -> str:
    """Which base this is, as 64 hex digits, in milliseconds also for a large one.

    sha256 over the architecture (config.json without keys that vary by tool), the tokenizer, and of each weight file
    its name, size and 16 evenly spaced samples of 64 KiB, so that a fine-tune of the same shape differs.
    """
    digest = hashlib.sha256()
    config = json.loads((path / "config.json").read_bytes())
    for key in VOLATILE_CONFIG_KEYS:
        config.pop(key, None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for name in ("tokenizer.json", "tokenizer.model"):
        if (path / name).is_file():
            digest.update((path / name).read_bytes())
    for weights in weight_files(path):
        size = weights.stat().st_size
        digest.update(f"{weights.name} {size}".encode())
        with weights.open("rb") as stream:
            for sample in range(SAMPLES_PER_FILE):
                stream.seek(max(0, size - SAMPLE_BYTES) * sample // (SAMPLES_PER_FILE - 1), os.SEEK_SET)
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()

"""Base models: where one lies and which one it is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from genome.errors import InvalidConfig

SAMPLES_PER_FILE = 16
SAMPLE_BYTES = 1 << 16
VOLATILE_CONFIG_KEYS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "_from_model_config")


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

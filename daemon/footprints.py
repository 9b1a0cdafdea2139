"""What each trainer's library takes on this machine, in the terms of `genome.memory`. Measured: docs/performance.md."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from genome.memory import MIB, Library

FRAGMENTED = 1.7
"""Passes of other lengths leave holes in the heap that no later one fits into."""
ON_A_CPU = {
    "torch": Library(process_bytes=480 * MIB, number_bytes=4, slack=FRAGMENTED),
    "mlx": Library(process_bytes=300 * MIB, number_bytes=4, scores=True),
    "unsloth": Library(process_bytes=620 * MIB, number_bytes=4, slack=FRAGMENTED),
}
"""Of one that is not listed nobody knows; it is taken for torch where a guess will do."""
ON_A_GPU = {
    "torch": Library(process_bytes=2048 * MIB, number_bytes=2),
    "unsloth": Library(process_bytes=3072 * MIB, number_bytes=2),
}
"""An NVIDIA one. The context that CUDA keeps in the host's memory is the process's."""
HIDDEN = ("", "-1")
"""First in CUDA_VISIBLE_DEVICES: no GPU is seen."""


def uses_gpu(trainer: str) -> bool:
    """Whether a trainer takes an NVIDIA GPU here. Told without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if trainer not in ON_A_GPU or visible in HIDDEN or shutil.which("nvidia-smi") is None:
        return False
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def known(trainer: str) -> bool:
    """Whether it was measured what a trainer takes."""
    return trainer in ON_A_CPU


def library(trainer: str, gpu: bool) -> Library:
    """``gpu``: `uses_gpu` said so."""
    if not gpu:
        found = ON_A_CPU.get(trainer, ON_A_CPU["torch"])
        halves = trainer == "mlx" and sys.platform == "darwin" and platform.machine() == "arm64"
        return replace(found, number_bytes=2) if halves else found
    found = ON_A_GPU[trainer]
    return replace(found, four_bits=trainer == "unsloth" and find_spec("bitsandbytes") is not None)

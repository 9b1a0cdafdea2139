"""What each trainer's library takes on this machine, in the terms of `genome.memory`. Measured: docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from daemon.free_memory import COMMAND_SECONDS
from genome import bases, blas, lora
from genome.memory import MIB, Library
from genome.training import Job

HOLES = 1.4
"""Slack: passes of other lengths leave some in the heap that no later one fits into."""
HALVES = 1.6
"""The same of activations in half precision, of which attention and norms are computed in float32."""
ON_A_CPU = {
    "torch": Library(process_bytes=480 * MIB, number_bytes=4, padded=False, slack=HOLES, joined=True),
    "mlx": Library(process_bytes=360 * MIB, number_bytes=4, scores=True, measured=6, slack=1.2),
    "unsloth": Library(process_bytes=620 * MIB, number_bytes=4, slack=HOLES),
}
"""Of one that is not listed nobody knows; it is taken for torch where a guess will do."""
ON_A_GPU = {
    "torch": Library(process_bytes=2048 * MIB, number_bytes=4, padded=False, slack=1.3, joined=True),
    "unsloth": Library(process_bytes=3072 * MIB, number_bytes=4, slack=1.3),
}
"""An NVIDIA one. The context that CUDA keeps in the host's memory is the process's."""
AMPERE = 8.0
"""The first compute capability with bfloat16."""
CPU = Path("/proc/cpuinfo")
"""Where it is not there, torch is taken to compute in float32."""
HIDDEN = ("", "-1")
"""First in CUDA_VISIBLE_DEVICES: no GPU is seen."""


def uses_gpu(trainer: str) -> bool:
    """Whether a trainer takes an NVIDIA GPU here. Told without importing torch."""
    if trainer not in ON_A_GPU or _first_gpu() in HIDDEN or shutil.which("nvidia-smi") is None:
        return False
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def known(trainer: str) -> bool:
    """Whether it was measured what a trainer takes."""
    return trainer in ON_A_CPU


def packs(trainer: str) -> bool:
    """Whether a trainer makes four bits of a base's weights as it loads them: Unsloth with bitsandbytes and a GPU."""
    return trainer == "unsloth" and uses_gpu(trainer) and find_spec("bitsandbytes") is not None


def library(job: Job, gpu: bool) -> Library:
    """``gpu``: `uses_gpu` said so. May block for the length of a command."""
    halves, beside = _in_halves(job, gpu), _beside(job)
    if gpu:
        number, four_bits = 2 if halves else 4, packs(job.trainer)
        return replace(ON_A_GPU[job.trainer], number_bytes=number, four_bits=four_bits, beside=beside)
    found = replace(ON_A_CPU.get(job.trainer, ON_A_CPU["torch"]), beside=beside)
    if not halves:
        return found
    return replace(found, number_bytes=2, slack=found.slack if _on_metal(job) else HALVES)


def rank(adapter: Path, otherwise: int) -> int:
    """Of an adapter's directory; ``otherwise`` where that does not say it."""
    try:
        return int(json.loads((adapter / lora.CONFIG).read_bytes())["r"])
    except (OSError, ValueError, KeyError, TypeError):
        return otherwise


def _beside(job: Job) -> int:
    """Ranks of the adapters that are applied beside the one that learns; Unsloth applies none."""
    return 0 if job.trainer == "unsloth" else sum(rank(Path(each.path), job.settings.rank) for each in job.beside)


def _in_halves(job: Job, gpu: bool) -> bool:
    """Whether a trainer computes in 16 bits: where it is told to, else as it chooses."""
    if job.settings.dtype != "auto":
        return job.settings.dtype == "bfloat16"
    if job.trainer == "unsloth":
        return gpu  # whatever the base is stored in
    if bases.dtype(Path(job.base)) == "float32":
        return False
    if job.trainer == "torch":
        return _gpu_has_bfloat16() if gpu else _cpu_has_bfloat16()
    return _on_metal(job)


def _on_metal(job: Job) -> bool:
    return job.trainer == "mlx" and sys.platform == "darwin" and platform.machine() == "arm64"


def _cpu_has_bfloat16() -> bool:
    with suppress(OSError):
        return not set(blas.BF16_INSTRUCTIONS).isdisjoint(CPU.read_text().split())
    return False


def _gpu_has_bfloat16() -> bool:
    """Of its own. One that does not say its capability is taken to compute in float32."""
    command = ["nvidia-smi", f"--id={_first_gpu()}", "--query-gpu=compute_cap", "--format=csv,noheader"]
    with suppress(OSError, ValueError, LookupError, subprocess.SubprocessError):
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS).stdout
        return float(said.splitlines()[0]) >= AMPERE
    return False


def _first_gpu() -> str:
    """The one that CUDA puts first."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()

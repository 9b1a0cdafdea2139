"""Which trainers there are, by name. A module is named as text and imported by a job's own process alone.

A package of somebody else's adds one by an entry point in the group ``genome.trainers``: its name is the word
genome.toml uses, its value the module that ``python -m`` runs and that keeps to `daemon.trainers.contract`.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from genome.errors import InvalidConfig

ENTRY_POINTS = "genome.trainers"


@dataclass(frozen=True)
class Entry:
    """``module`` is what ``python -m`` runs, ``packages`` are what it imports, ``extra`` is what pip calls them."""

    module: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    library: str = ""
    """torch or mlx: whose weights it reads. Empty: not known."""

    def missing(self) -> list[str]:
        return [package for package in self.packages if find_spec(package) is None]


TRAINERS = {
    "torch": Entry("daemon.trainers.torch_lora", ("torch", "transformers", "peft"), "torch", "torch"),
    "mlx": Entry("daemon.trainers.mlx_lora", ("mlx", "mlx_lm"), "mlx", "mlx"),
    "unsloth": Entry("daemon.trainers.unsloth_lora", ("torch", "unsloth", "trl"), "unsloth", "torch"),
}


def resolve(name: str) -> str:
    """The trainer that ``name`` means on this machine, installed, or InvalidConfig saying what to install.

    ``auto`` is mlx on Apple silicon, unsloth where there is an NVIDIA GPU, torch elsewhere and where those are absent.
    """
    name = _named(name)
    entry = _entry(name)
    if missing := entry.missing():
        raise InvalidConfig(
            f"trainer {name!r} needs {', '.join(missing)}, which is not installed",
            f"Run: pip install 'genome[{entry.extra}]'",
        )
    return name


def library(name: str) -> str:
    """torch or mlx: whose weights the trainer reads that ``name`` means. Empty where that is not known."""
    return _entry(_named(name)).library


def command(name: str, job_directory: Path, checkpoint_directory: Path) -> list[str]:
    """What the runner starts for one job."""
    module = _entry(resolve(name)).module
    return [sys.executable, "-m", module, str(job_directory), str(checkpoint_directory)]


def names() -> list[str]:
    """Every name ``resolve`` takes."""
    return ["auto", *TRAINERS, *sorted(point.name for point in entry_points(group=ENTRY_POINTS))]


def _named(name: str) -> str:
    if name != "auto":
        return name
    preferred = _preferred()
    return "torch" if TRAINERS[preferred].missing() else preferred


def _entry(name: str) -> Entry:
    if name in TRAINERS:
        return TRAINERS[name]
    for point in entry_points(group=ENTRY_POINTS, name=name):
        return Entry(point.value)
    raise InvalidConfig(f"there is no trainer {name!r}", f"Trainers: {', '.join(names())}")


def _preferred() -> str:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "mlx"
    return "unsloth" if _has_nvidia_gpu() else "torch"


def _has_nvidia_gpu() -> bool:
    """The driver's device files are looked for, because asking CUDA would take importing torch."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/usr/lib/wsl/lib/nvidia-smi").exists()

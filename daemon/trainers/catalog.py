"""Which trainers there are, by name. A module is named as text and imported by a job's own process alone.

A package of somebody else's adds one by an entry point in the group ``genome.trainers``: its name is the word
genome.toml uses, its value the module that ``python -m`` runs and that keeps to `daemon.trainers.contract`. A program
in any language is ``command``, and training.command says which.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from genome.errors import InvalidConfig

if TYPE_CHECKING:
    from genome.config import Config

ENTRY_POINTS = "genome.trainers"
COMMAND = "command"
"""The name of a trainer that is a command line."""
SETTINGS_VARIABLE = "GENOME_TRAINER_SETTINGS"
"""Environment variable in which a trainer finds its own section of genome.toml, as JSON."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Environment variables from which libraries take how many threads they compute with, when they are loaded."""


@dataclass(frozen=True)
class Entry:
    """``module`` is what ``python -m`` runs, ``packages`` are what it imports, ``extra`` is what pip calls them."""

    module: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    library: str = ""
    """torch or mlx: whose weights it reads. Empty: not known."""
    remote: bool = False
    """Whether the training is done at a service, to which the signals are sent."""
    section: str = ""
    """Of genome.toml, where it has one of its own."""

    def missing(self) -> list[str]:
        return [package for package in self.packages if find_spec(package) is None]


TRAINERS = {
    "torch": Entry("daemon.trainers.torch_lora", ("torch", "transformers", "peft"), "torch", "torch"),
    "mlx": Entry("daemon.trainers.mlx_lora", ("mlx", "mlx_lm"), "mlx", "mlx"),
    "unsloth": Entry("daemon.trainers.unsloth_lora", ("torch", "unsloth", "trl"), "unsloth", "torch"),
    "fireworks": Entry("daemon.trainers.fireworks", ("httpx",), remote=True, section="fireworks"),
}


def resolve(name: str, program: Sequence[str] = ()) -> str:
    """The trainer that ``name`` means on this machine, installed, or InvalidConfig saying what to install.

    ``auto`` is mlx on Apple silicon, unsloth where there is an NVIDIA GPU, torch elsewhere and where those are absent;
    never one that is remote. ``program``: training.command, which is what ``command`` means.
    """
    if name == COMMAND:
        _executable(program)
        return name
    name = _named(name)
    entry = _entry(name)
    if missing := entry.missing():
        raise InvalidConfig(
            f"trainer {name!r} needs {', '.join(missing)}, which is not installed",
            f"Run: pip install 'genome[{entry.extra}]'" if entry.extra else f"Run: pip install {' '.join(missing)}",
        )
    return name


def library(name: str) -> str:
    """torch or mlx: whose weights the trainer reads that ``name`` means. Empty where that is not known."""
    return "" if name == COMMAND else _entry(_named(name)).library


def is_remote(name: str) -> bool:
    """Whether a job of this trainer is trained elsewhere."""
    return name in TRAINERS and TRAINERS[name].remote


def command(name: str, job_directory: Path, checkpoint_directory: Path, program: Sequence[str] = ()) -> list[str]:
    """What the runner starts for one job. ``program``: training.command."""
    directories = [str(job_directory), str(checkpoint_directory)]
    if name == COMMAND:
        return [_executable(program), *program[1:], *directories]
    return [sys.executable, "-m", _entry(resolve(name)).module, *directories]


def environment(name: str, config: Config) -> dict[str, str]:
    """What a trainer is told besides its job: its section of genome.toml, as it is now. No section holds a secret."""
    section = TRAINERS[name].section if name in TRAINERS else ""
    return {SETTINGS_VARIABLE: getattr(config, section).model_dump_json()} if section else {}


def threads(count: int) -> dict[str, str]:
    """The environment in which a trainer's libraries compute with so many threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(count))


def names() -> list[str]:
    """Every name ``resolve`` takes."""
    return ["auto", *TRAINERS, COMMAND, *sorted(point.name for point in entry_points(group=ENTRY_POINTS))]


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


def _executable(program: Sequence[str]) -> str:
    """Absolute, so that what is found now is what runs."""
    if not program or not program[0]:
        raise InvalidConfig(
            'training.trainer is "command", and training.command names no program',
            'Set command = ["/path/to/program", "argument"] under [training] in genome.toml',
        )
    found = shutil.which(Path(program[0]).expanduser())
    if found is None:
        missing = not Path(program[0]).expanduser().exists()
        raise InvalidConfig(
            f"the program of training.command, {program[0]}, is {'not there' if missing else 'not executable'}",
            "Give its whole path, or a name that is on the daemon's PATH" if missing else f"Run: chmod +x {program[0]}",
        )
    return str(Path(found).absolute())


def _preferred() -> str:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "mlx"
    return "unsloth" if _has_nvidia_gpu() else "torch"


def _has_nvidia_gpu() -> bool:
    """The driver's device files are looked for, because asking CUDA would take importing torch."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/usr/lib/wsl/lib/nvidia-smi").exists()

"""How much memory is free: what the system says, what limits the service, and the NVIDIA GPU's own.

What can be given up at once counts as free: caches of files on Linux, inactive pages on macOS. Swap does not: a trainer
that pages slows whoever serves. On a Mac the GPU has no memory of its own, and nothing is counted twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

COMMAND_SECONDS = 10.0
UNLIMITED = 1 << 60
"""cgroup v1 has no word for it, and gives the largest number of pages there is."""
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = (("memory.max", "memory.current"), ("memory.high", "memory.current"))
"""Files of a limit, and of what is used. Above memory.high a process is slowed down to nothing."""
MIB = 1 << 20


@dataclass(frozen=True)
class Memory:
    """In bytes. ``total`` is what there would be with nothing else running, within the limits of the service."""

    free: int
    total: int
    gpu_free: int | None = None
    """Of the NVIDIA GPU a trainer would take, the first; None: there is none, or nobody asked."""
    gpu_total: int | None = None

    @property
    def least(self) -> int:
        """Of the host and of the GPU."""
        return self.free if self.gpu_free is None else min(self.free, self.gpu_free)


def read(gpu: bool = False) -> Memory | None:
    """Of this process and what it starts; blocks for the length of a command. ``gpu``: also the GPU's. None: the system
    does not say."""
    with suppress(OSError, ValueError, LookupError, subprocess.SubprocessError):
        free, total = _macos() if sys.platform == "darwin" else _linux(Path("/"))
        on_gpu = nvidia(_said(*_nvidia_smi())) if gpu else (None, None)
        return Memory(free, total, *on_gpu)
    return None


def _linux(root: Path) -> tuple[int, int]:
    found = [meminfo((root / "proc/meminfo").read_text()), *_limits(root)]
    return min(free for free, _ in found), min(total for _, total in found)


def _macos() -> tuple[int, int]:
    return vm_stat(_said("vm_stat")), int(_said("sysctl", "-n", "hw.memsize"))


def _nvidia_smi() -> list[str]:
    """Of the GPU that CUDA puts first."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    one = [f"--id={first}"] if first else []
    return ["nvidia-smi", *one, "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS).stdout


def meminfo(text: str) -> tuple[int, int]:
    """Free and total, of /proc/meminfo (proc_meminfo(5))."""
    kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in text.splitlines())}
    return kibibytes["MemAvailable"] << 10, kibibytes["MemTotal"] << 10


def vm_stat(text: str) -> int:
    """Free, of vm_stat(1): pages that are free, read ahead, or not used lately."""
    first, *lines = text.splitlines()
    page = int(first.partition("page size of ")[2].split()[0])
    pages = {name: int(rest.strip(" .")) for name, _, rest in (line.rpartition(":") for line in lines) if name}
    return page * sum(pages[f"Pages {kind}"] for kind in ("free", "speculative", "inactive"))


def nvidia(text: str) -> tuple[int, int]:
    """Free and total of the first GPU, of nvidia-smi's memory.free,memory.total in MiB."""
    free, total = text.splitlines()[0].split(",")
    return int(free) * MIB, int(total) * MIB


def cgroups(text: str) -> list[tuple[str, str]]:
    """(mount below /sys/fs/cgroup, path) of those that may limit memory, of /proc/self/cgroup (cgroups(7))."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return [
        (controllers and "memory", path)
        for _, controllers, path in lines
        if not controllers or "memory" in controllers.split(",")
    ]


def within(limit: str, used: str, stat: str) -> tuple[int, int] | None:
    """Free and total, of one cgroup's limit, usage and memory.stat; None: it limits nothing.

    Cached files count as used there, and are given up first: those not used lately are taken for free.
    """
    if limit.strip() == "max" or int(limit) >= UNLIMITED:
        return None
    said = dict(line.split() for line in stat.splitlines())
    idle = int(said.get("total_inactive_file") or said.get("inactive_file") or 0)
    return max(0, int(limit) - int(used) + idle), int(limit)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Of every cgroup this process is in, and of those around it."""
    own = root / "proc/self/cgroup"
    for mount, path in cgroups(own.read_text()) if own.exists() else ():
        top = root / "sys/fs/cgroup" / mount
        place = top / path.lstrip("/")
        for directory in (place, *place.parents):
            for limit, used in (V1,) if mount else V2:
                if directory.is_relative_to(top) and (directory / limit).exists():
                    texts = ((directory / name).read_text() for name in (limit, used, "memory.stat"))
                    if (found := within(*texts)) is not None:
                        yield found

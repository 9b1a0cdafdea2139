"""What is free, read from what systems say: captured samples."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from daemon import footprints, free_memory
from daemon.free_memory import MIB

MEMINFO = """MemTotal:       24684084 kB
MemFree:        19186756 kB
MemAvailable:   22687764 kB
Buffers:           85388 kB
HugePages_Total:       0
DirectMap1G:           0 kB
"""
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               12345.
Pages active:                            412345.
Pages inactive:                          400000.
Pages speculative:                         1000.
Pages throttled:                              0.
Pages wired down:                        123456.
Pages purgeable:                           2222.
"Translation faults":                 987654321.
File-backed pages:                       300000.
Pages stored in compressor:              555555.
"""
V1_STAT = "cache 1000\ninactive_file 10\ntotal_cache 5000\ntotal_inactive_file 3000\n"


def test_linux_says_what_can_be_had_without_swapping() -> None:
    assert free_memory.meminfo(MEMINFO) == (22687764 << 10, 24684084 << 10)


def test_macos_counts_pages_once() -> None:
    """Purgeable and file-backed ones are among the others."""
    assert free_memory.vm_stat(VM_STAT) == 16384 * (12345 + 1000 + 400000)


def test_nvidia_says_it_of_the_first_gpu() -> None:
    assert free_memory.nvidia("140000, 143771\n100, 143771\n") == (140000 * MIB, 143771 * MIB)


def test_only_groups_that_may_limit_memory_are_looked_at() -> None:
    """The second version's are at the top of the mount, the first's below memory."""
    assert free_memory.cgroups("0::/system.slice/genome.service\n") == [("", "/system.slice/genome.service")]
    first = "8:pids:/\n4:memory,hugetlb:/docker/ab\n1:name=systemd:/x\n0::/\n"
    assert free_memory.cgroups(first) == [("memory", "/docker/ab"), ("", "/")]


def test_a_limit_leaves_what_is_not_used() -> None:
    """Files that were cached and not used lately are given up first."""
    assert free_memory.within("8000\n", "6000\n", V1_STAT) == (5000, 8000)
    assert free_memory.within("8000", "9000", "inactive_file 0\n") == (0, 8000)
    assert free_memory.within("max\n", "6000\n", "") is None
    assert free_memory.within("9223372036854771712\n", "6000\n", V1_STAT) is None


def test_the_narrowest_limit_counts(tmp_path: Path) -> None:
    """Of the service, and of every slice around it; the machine's where it is less."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/genome.service\n")
    assert free_memory._linux(tmp_path) == free_memory.meminfo(MEMINFO)
    for place, limit, high, used in (
        ("system.slice", 4000 * MIB, "max", 1000 * MIB),
        ("system.slice/genome.service", 8000 * MIB, 6000 * MIB, 500 * MIB),
    ):
        directory = tmp_path / "sys/fs/cgroup" / place
        directory.mkdir(parents=True, exist_ok=True)
        for name, value in (("max", limit), ("high", high), ("current", used), ("stat", "inactive_file 0")):
            (directory / f"memory.{name}").write_text(f"{value}\n")
    assert free_memory._linux(tmp_path) == (3000 * MIB, 4000 * MIB)
    (tmp_path / "sys/fs/cgroup/system.slice/memory.max").write_text("max\n")
    assert free_memory._linux(tmp_path) == (5500 * MIB, 6000 * MIB)


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="it is asked of this system")
def test_this_machine_says_it() -> None:
    found = free_memory.read()
    assert found is not None and 0 < found.free < found.total and found.least == found.free


def test_a_system_that_does_not_say_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose driver is broken among them."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert free_memory.read(gpu=True) is None


def test_a_gpu_that_says_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists no GPU, and exits as if all were well."""
    _program(tmp_path, monkeypatch)
    assert free_memory.read(gpu=True) is None


@pytest.mark.parametrize(
    ("visible", "used"), [(None, True), ("1", True), ("GPU-5a", True), ("", False), ("-1", False), ("-1,0", False)]
)
def test_a_gpu_that_is_hidden_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, used: bool
) -> None:
    """CUDA sees none from the first number on that is none, and the trainer then takes the host's memory."""
    _program(tmp_path, monkeypatch)
    monkeypatch.setattr(footprints, "version", lambda package: "2.9.0+cu128")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert footprints.uses_gpu("torch") is used


def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that prints nothing."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

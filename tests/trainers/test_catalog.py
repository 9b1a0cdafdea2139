"""Trainers by name, without importing one."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from daemon.trainers import catalog
from daemon.trainers.catalog import Entry
from genome.errors import InvalidConfig


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are there; all to begin with."""
    present = {package for entry in catalog.TRAINERS.values() for package in entry.packages}
    monkeypatch.setattr(catalog, "find_spec", lambda name: name if name in present else None)
    return present


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Linux machine without a GPU."""
    monkeypatch.setattr(catalog.sys, "platform", "linux")
    monkeypatch.setattr(catalog, "_has_nvidia_gpu", lambda: False)
    return monkeypatch


def test_auto_is_mlx_on_apple_silicon(installed: set[str], machine: pytest.MonkeyPatch) -> None:
    machine.setattr(catalog.sys, "platform", "darwin")
    machine.setattr(catalog.platform, "machine", lambda: "arm64")
    assert catalog.resolve("auto") == "mlx"
    machine.setattr(catalog.platform, "machine", lambda: "x86_64")
    assert catalog.resolve("auto") == "torch"


def test_auto_is_unsloth_where_it_and_an_nvidia_gpu_are(installed: set[str], machine: pytest.MonkeyPatch) -> None:
    assert catalog.resolve("auto") == "torch"
    machine.setattr(catalog, "_has_nvidia_gpu", lambda: True)
    assert catalog.resolve("auto") == "unsloth"
    installed.remove("unsloth")
    assert catalog.resolve("auto") == "torch"


def test_a_trainer_whose_packages_are_missing_names_what_to_install(installed: set[str]) -> None:
    installed.remove("mlx_lm")
    with pytest.raises(InvalidConfig, match=r"needs mlx_lm.*pip install 'genome\[mlx\]'"):
        catalog.resolve("mlx")


def test_an_unknown_trainer_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidConfig, match=r"no trainer 'tensorflow'\. Trainers: auto, torch, mlx, unsloth"):
        catalog.resolve("tensorflow")


def test_another_package_adds_a_trainer_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "my_package.my_trainer", catalog.ENTRY_POINTS)
    monkeypatch.setattr(catalog, "entry_points", lambda group, name="mine": [point] if name == "mine" else [])
    assert catalog.resolve("mine") == "mine"
    assert "mine" in catalog.names()
    assert catalog.command("mine", Path("/jobs/j"), Path("/checkpoints/j"))[1:] == [
        "-m", "my_package.my_trainer", "/jobs/j", "/checkpoints/j",
    ]  # fmt: skip


def test_a_command_line_is_a_trainer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its path or by a name on the PATH; it runs by the path it was found at."""
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    directories = (Path("/jobs/j"), Path("/checkpoints/j"))
    started = [str(program), "--fast", "/jobs/j", "/checkpoints/j"]
    assert catalog.resolve("command", [str(program)]) == "command" and "command" in catalog.names()
    assert catalog.command("command", *directories, program=(str(program), "--fast")) == started
    monkeypatch.setenv("PATH", str(tmp_path))
    assert catalog.command("command", *directories, program=("mine", "--fast")) == started


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ((), r"training\.command names no program\. Set command = \["),
        (("",), r"training\.command names no program"),
        (("/nowhere/mine",), r"/nowhere/mine, is not there\. Give its whole path"),
        (("no-such-program-here",), r"no-such-program-here, is not there\..*on the daemon's PATH"),
        ((__file__,), r"test_catalog\.py, is not executable\. Run: chmod \+x"),
    ],
)
def test_a_command_that_cannot_be_run_says_why(program: tuple[str, ...], reason: str) -> None:
    """When a job is ordered, and when it is started."""
    with pytest.raises(InvalidConfig, match=reason):
        catalog.resolve("command", program)
    with pytest.raises(InvalidConfig, match=reason):
        catalog.command("command", Path("/jobs/j"), Path("/checkpoints/j"), program)


def test_every_shipped_trainer_can_be_started_as_a_module() -> None:
    root = Path(catalog.__file__).parents[2]
    for entry in catalog.TRAINERS.values():
        assert (root / Path(*entry.module.split(".")) / "__main__.py").is_file()


def test_looking_for_missing_packages_imports_none() -> None:
    code = "import sys; from daemon.trainers import catalog; catalog.resolve('auto'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "mlx", "transformers", "unsloth", "numpy"} & set(loaded)
    assert Entry("x", ("no_such_package_here",)).missing() == ["no_such_package_here"]

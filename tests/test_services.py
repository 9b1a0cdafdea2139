"""The service files: what systemd and launchd are told, held against the programs and the config they are about."""

from __future__ import annotations

import plistlib
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from daemon.cli import app
from genome.config import Daemon, Worker

ROOT = Path(__file__).resolve().parents[1]
UNITS = {"daemon": ROOT / "systemd/genome-daemon.service", "worker": ROOT / "systemd/genome-worker.service"}
AGENTS = {"daemon": ROOT / "launchd/io.genome.daemon.plist", "worker": ROOT / "launchd/io.genome.worker.plist"}
SHUTDOWN_SECONDS = {"daemon": Daemon().shutdown_seconds, "worker": Worker().shutdown_seconds}
INSTALLED = "/opt/genome/.venv/bin"
SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600}

both = pytest.mark.parametrize("name", ["daemon", "worker"])


def unit(name: str) -> dict[str, list[str]]:
    """Every setting of a unit, with the values it is given one after another."""
    settings: dict[str, list[str]] = {}
    for line in UNITS[name].read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def agent(name: str) -> dict[str, Any]:
    return plistlib.loads(AGENTS[name].read_bytes())


def seconds(span: str) -> float:
    number = span.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * SECONDS[span.removeprefix(number)]


def assert_is_a_verb(words: list[str], verb: str) -> None:
    """``genome VERB``, where the package installs `genome` and the command line knows the verb and its options."""
    assert words[:2] == ["genome", verb]
    assert "genome" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    command = typer.main.get_command(app)
    assert verb in command.commands  # type: ignore[attr-defined]
    known = {option for given in command.commands[verb].params for option in given.opts}  # type: ignore[attr-defined]
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_has_nothing_to_say_about_the_units() -> None:
    """`systemd-analyze verify systemd/*.service` prints nothing: no unknown key, no program that is not there."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, UNITS.values())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@both
def test_a_unit_starts_a_verb_that_exists(name: str) -> None:
    """ExecStart is `env genome daemon` or `env genome worker`, on the home that the unit may write to."""
    program, *words = shlex.split(unit(name)["ExecStart"][0])
    assert Path(program).is_file()
    assert_is_a_verb(words, name)
    assert unit(name)["StateDirectory"] == ["genome"]
    assert words[2:] == ["--home", "%S/genome"]


@both
def test_a_unit_says_when_it_is_ready_and_that_it_lives(name: str) -> None:
    """Type=notify with a watchdog: both processes answer one."""
    settings = unit(name)
    assert settings["Type"] == ["notify"]
    assert seconds(settings["WatchdogSec"][0]) >= 60


@both
def test_a_unit_is_always_started_again(name: str) -> None:
    """However often it fails, systemd does not give up on it."""
    settings = unit(name)
    assert settings["Restart"] == ["always"]
    assert settings["StartLimitIntervalSec"] == ["0"]


@both
def test_the_worker_and_the_daemon_restart_alone(name: str) -> None:
    """Neither service depends on the other, so the worker stays up while the daemon restarts."""
    other = {"daemon": "worker", "worker": "daemon"}[name]
    assert not [value for values in unit(name).values() for value in values if f"genome-{other}" in value]


@both
def test_stopping_waits_longer_than_the_process_needs(name: str) -> None:
    """KILL comes only after the config's shutdown_seconds."""
    assert seconds(unit(name)["TimeoutStopSec"][0]) > SHUTDOWN_SECONDS[name] + 10
    assert agent(name)["ExitTimeOut"] > SHUTDOWN_SECONDS[name] + 10


def test_stopping_the_daemon_leaves_its_trainer_time_for_a_checkpoint() -> None:
    """TERM reaches the daemon alone; it stops its trainer itself, and one killed for memory does not end it."""
    settings = unit("daemon")
    assert settings["KillMode"] == ["mixed"]
    assert settings["OOMPolicy"] == ["continue"]


def test_learning_yields_to_serving() -> None:
    """The daemon's unit, trainers included, has less processor and disk than the worker, and is killed first."""
    daemon, worker = unit("daemon"), unit("worker")
    for weight in ("CPUWeight", "IOWeight"):
        assert int(daemon[weight][0]) < int(worker[weight][0])
    assert int(daemon["OOMScoreAdjust"][0]) > int(worker["OOMScoreAdjust"][0])
    assert int(daemon["Nice"][0]) > 0
    assert agent("daemon")["Nice"] > agent("worker").get("Nice", 0)


@both
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("User", "genome"),
        ("UMask", "0077"),
        ("StateDirectoryMode", "0700"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("PrivateTmp", "yes"),
        ("CapabilityBoundingSet", ""),
        ("SystemCallFilter", "@system-service"),
    ],
)
def test_a_unit_is_sandboxed(name: str, key: str, value: str) -> None:
    """It has no privileges, writes to its own directories alone, and keeps them to itself."""
    assert unit(name)[key] == [value]


@both
@pytest.mark.parametrize("key", ["MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock", "ProcSubset"])
def test_the_sandbox_lets_engines_work(name: str, key: str) -> None:
    """What would forbid machine code made at run time, or hide the accelerator, is not set."""
    assert key not in unit(name)


@both
def test_an_agent_starts_a_verb_that_exists(name: str) -> None:
    """The plist parses, is labelled as its file is called, and runs `genome daemon` or `genome worker`."""
    settings = agent(name)
    assert settings["Label"] == AGENTS[name].stem
    shell, flag, line = settings["ProgramArguments"]
    assert Path(shell).is_file()
    assert flag == "-c"
    words = shlex.split(line)
    assert words[0] == "exec"
    assert_is_a_verb(words[1:], name)


@both
def test_an_agent_is_always_started_again_and_logs(name: str) -> None:
    """KeepAlive, and a log of its own in the user's Library."""
    settings = agent(name)
    assert settings["KeepAlive"] is True
    assert settings["RunAtLoad"] is True
    assert f'"$HOME/Library/Logs/genome-{name}.log"' in settings["ProgramArguments"][2]
    assert settings["Umask"] == 0o077


def test_serving_is_never_throttled_on_macos() -> None:
    """The worker is Interactive; the daemon is Standard and niced: Background would throttle trainers for good."""
    assert agent("worker")["ProcessType"] == "Interactive"
    assert agent("daemon")["ProcessType"] == "Standard"


@both
def test_both_systems_look_for_genome_where_the_docs_install_it(name: str) -> None:
    """The first directory of PATH is the one docs/services.md names."""
    path = next(value for value in unit(name)["Environment"] if value.startswith("PATH="))
    assert path.removeprefix("PATH=").split(":")[0] == INSTALLED
    assert agent(name)["EnvironmentVariables"]["PATH"].split(":")[0] == INSTALLED
    assert INSTALLED in (ROOT / "docs/services.md").read_text()

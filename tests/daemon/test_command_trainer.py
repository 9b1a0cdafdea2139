"""A trainer that is a command line: the very one that docs/trainers.md shows, through the daemon's own runner."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixed import NOW, ROOT

from daemon import orders, supervisor
from daemon.runner import Runner
from genome import adapters, bases, batches, lora
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.errors import InvalidConfig
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.lines import from_signal


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """The program that docs/trainers.md shows."""
    page = (ROOT / "docs" / "trainers.md").read_text()
    (text,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    program = tmp_path / "mine.py"
    program.write_text(text)
    return program


def configured(base: Path, *command: str) -> Config:
    training = {"trainer": "command", "command": command, "anchor_weight": 0, "rank": 4, "max_starts": 1}
    return Config.model_validate({"base": str(base), "training": training})


@pytest.fixture
def ordered(home: Home, signal: Callable[..., Any], base_path: Path) -> Callable[[Config], JobDirectory]:
    """Orders the job of ten signals, as the planner does."""

    def order(config: Config) -> JobDirectory:
        Buffer(home, Intake()).accept([from_signal(signal(number)) for number in range(10)], NOW)
        batch = batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150))
        assert batch is not None
        job = orders.order(home, config, batch, base_path, bases.fingerprint(base_path))
        return JobDirectory(home.active_jobs / job.id)

    return order


async def composed(home: Home, config: Config) -> Runner:
    """The runner of a daemon with that config."""
    made = await supervisor.compose(home, config, None, home.root, "f" * 64)  # type: ignore[arg-type]
    return made.runners[0]


async def test_the_program_in_the_docs_is_a_trainer(
    home: Home, ordered: Callable[[Config], JobDirectory], shown: Path, base_path: Path
) -> None:
    """Short, and importing nothing of ours; its progress is recorded, and its adapter installed as a candidate."""
    text = shown.read_text()
    assert len([line for line in text.splitlines() if line]) <= 20
    assert not re.search(r"^(import|from) .*\b(genome|daemon)\b", text, re.MULTILINE)
    config = configured(base_path, sys.executable, str(shown))
    job = ordered(config)
    await (await composed(home, config)).step()
    assert job.state() == "judging", job.log.read_text()
    made = adapters.manifest(home, "helper/git-v1.0")
    assert (made.trainer, made.job, made.settings["rank"]) == ("command", job.id, 4)
    assert list(lora.read(home.adapter(made.id)).modules) == ["model.layers.0.self_attn.o_proj"]
    assert [event.step for event in job.events() if event.event == "progress"] == list(range(1, 8))


def test_the_program_in_the_docs_can_be_started_again(
    home: Home, ordered: Callable[[Config], JobDirectory], shown: Path, base_path: Path
) -> None:
    """Also where it finished and the daemon died before it heard: the adapter that is there stays."""
    command = [sys.executable, str(shown)]
    job = ordered(configured(base_path, *command))
    checkpoints = home.checkpoints(job.id)
    checkpoints.mkdir(parents=True)
    subprocess.run([*command, str(job.path), str(checkpoints)], check=True, capture_output=True)
    first = lora.read(checkpoints / "adapter").digest
    subprocess.run([*command, str(job.path), str(checkpoints)], check=True, capture_output=True)
    assert lora.read(checkpoints / "adapter").digest == first


async def test_a_command_gets_its_arguments_as_they_are(
    home: Home, ordered: Callable[[Config], JobDirectory], base_path: Path, tmp_path: Path
) -> None:
    """No shell takes them apart; the two directories come last; its words and its status are the failure."""
    program = tmp_path / "fails"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit(repr(sys.argv[1:]))\n")
    program.chmod(0o700)
    config = configured(base_path, str(program), "two words; $HOME")
    job = ordered(config)
    await (await composed(home, config)).step()
    result = JobDirectory(home.completed_jobs / job.id).result()
    given = ["two words; $HOME", str(job.path), str(home.checkpoints(job.id))]
    assert result is not None and f"exit status 1; {given!r}" in (result.reason or "")


async def test_a_program_that_vanished_costs_the_job_nothing(
    home: Home, ordered: Callable[[Config], JobDirectory], shown: Path, base_path: Path
) -> None:
    """The runner says what is missing and where it stands in genome.toml; once it is back, the job trains."""
    shown.write_text(f"#!{sys.executable}\n{shown.read_text()}")
    shown.chmod(0o700)
    config = configured(base_path, str(shown))
    job = ordered(config)
    run = await composed(home, config)
    shown.chmod(0o600)
    for _ in range(3):
        with pytest.raises(InvalidConfig, match=r"training\.command, .*mine\.py, is not executable\. Run: chmod \+x"):
            await run.step()
    assert (job.state(), job.starts()) == ("waiting", 0)
    shown.chmod(0o700)
    await run.step()
    assert job.state() == "judging"


async def test_a_job_is_not_ordered_for_a_program_that_is_not_there(
    home: Home, ordered: Callable[[Config], JobDirectory], base_path: Path
) -> None:
    """Whoever orders it hears why."""
    with pytest.raises(InvalidConfig, match="is not there"):
        ordered(configured(base_path, "/nowhere/mine"))

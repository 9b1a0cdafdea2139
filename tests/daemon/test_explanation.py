"""`genome triggers explain`: why a domain trains or does not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from daemon import cli, explanation, status
from genome import batches, config, files
from genome.batches import HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.errors import NotFound
from genome.layout import Home
from genome.lines import from_signal

NIGHT = datetime(2025, 6, 1, 23, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
SETTINGS = """
[triggers]
time_zone = "Europe/Berlin"
quiet_hours = ["22:00-07:00"]

[personas.helper.triggers.threshold]
min_examples = 20

[personas.helper.domains.git.triggers.scheduled]
cron = "0 3 * * *"
"""


@pytest.fixture
def filled(home: Home, base_path: Path, signal: Callable[..., Any]) -> Home:
    """Thirty signals wait, half of them silver."""
    config.init(home, str(base_path))
    home.config.write_text(f"base = '{base_path}'\n{SETTINGS}")
    sources = ("human", "ai")
    Buffer(home, Intake()).accept([from_signal(signal(i, source=sources[i % 2])) for i in range(30)], NIGHT)
    return home


def test_everything_that_decides_is_said(filled: Home) -> None:
    """What each trigger says, what holds back, when it is looked at again, in seconds and on the clock of the wall."""
    (found,) = explanation.explain(filled, config.load(filled), ("", ""), NIGHT)
    assert (found["persona"], found["domain"], found["due"], found["starts"]) == ("helper", "git", True, False)
    assert found["triggers"][0]["reason"].startswith("threshold: 22.5 of 20 examples wait (30 signals")
    assert found["triggers"][1]["look_again_local"] == "2025-06-02 03:00 CEST"
    assert found["held_until_local"] == "2025-06-02 07:00 CEST" and "quiet hours" in found["held_by"]
    assert found["look_again"] == NIGHT + 4 * 3600


def test_each_setting_says_where_it_comes_from(filled: Home) -> None:
    """The widest table in which it is what counts here."""
    (found,) = explanation.explain(filled, config.load(filled), ("helper", "git"), NIGHT)
    settings = {each["key"]: (each["value"], each["from"]) for each in found["settings"]}
    assert settings["threshold.max_wait_hours"] == (168.0, "default")
    assert settings["time_zone"] == ("Europe/Berlin", "everybody")
    assert settings["threshold.min_examples"] == (20, "persona")
    assert settings["scheduled.cron"] == ("0 3 * * *", "domain")
    assert settings["scheduled.missed"] == ("once", "default")
    assert settings["quality_drop"] == (False, "default")
    text = """
base = "x"
[triggers.scheduled]
cron = "0 3 * * *"
[personas.p.triggers]
scheduled = false
[personas.p.domains.d.triggers]
scheduled = { missed = "skip" }
"""
    loaded = config.parse(text, Path("genome.toml"))
    assert ("scheduled", False, "persona") in list(explanation.settings_of(loaded, "p", "other"))
    of_d = {key: (value, width) for key, value, width in explanation.settings_of(loaded, "p", "d")}
    assert of_d["scheduled.missed"] == ("skip", "domain") and of_d["scheduled.only_if_data"] == (True, "default")


def test_too_little_to_judge_by_is_said(home: Home, signal: Callable[..., Any]) -> None:
    """Due, and yet no batch: the number that is missing."""
    few = Config.model_validate({"base": "x", "triggers": {"threshold": {"min_examples": 5}}})
    Buffer(home, Intake()).accept([from_signal(signal(i)) for i in range(5)], NIGHT)
    (found,) = explanation.explain(home, few, ("", ""), NIGHT)
    assert found["due"] and found["reason"].endswith("but fewer than 27 questions, too few to judge by")
    assert status.waiting(home, few)["helper/git"] == found["reason"]


def test_a_run_that_passed_while_the_daemon_is_down_is_as_it_will_be(home: Home, signal: Callable[..., Any]) -> None:
    """Caught up on once, or skipped, by config; a running daemon sees its own runs."""
    Buffer(home, Intake()).accept([from_signal(signal(i)) for i in range(30)], NIGHT)
    for missed, down, due in (("once", True, True), ("skip", True, False), ("skip", False, True)):
        given = {"scheduled": {"cron": "0 3 * * *", "missed": missed, "time_zone": "Europe/Berlin"}, "threshold": False}
        settings = Config.model_validate({"base": "x", "triggers": given})
        memory = explanation.plan(home, settings, ("helper", "git"), NIGHT)[0].memory
        memory.write(home.triggers("helper", "git"))
        if down:
            assert explanation.plan(home, settings, ("helper", "git"), NIGHT + 86_400)[0].start is due
        else:
            with files.locked(home.daemon_lock, "a daemon"):
                assert explanation.plan(home, settings, ("helper", "git"), NIGHT + 86_400)[0].start is due


def test_looking_changes_nothing(filled: Home) -> None:
    """Neither a batch is formed nor anything remembered."""
    before = sorted(filled.buffer.rglob("*"))
    explanation.explain(filled, config.load(filled), ("", ""), time.time())
    assert sorted(filled.buffer.rglob("*")) == before


def test_the_verb_prints_it_for_a_person_and_for_a_program(filled: Home) -> None:
    """One block a domain, or one list."""
    run = CliRunner()
    said = run.invoke(cli.app, ["triggers", "explain", "--persona", "helper", "--home", str(filled.root)]).output
    assert said.startswith("helper/git ") and "threshold.min_examples = 20  from persona" in said
    assert "looked at again" in said and "scheduled: next at" in said
    answer = run.invoke(cli.app, ["triggers", "explain", "--json", "--home", str(filled.root)]).output
    assert json.loads(answer)[0]["triggers"][0]["trigger"] == "threshold"


def test_what_is_queued_already_is_said(filled: Home) -> None:
    """A domain that waits for signals may have a batch, or a rebuild, that waits for its turn."""
    run, at = CliRunner(), ["--home", str(filled.root)]
    batch = batches.form(filled, "helper", "git", "test", NIGHT, HeldOutPolicy(0.3, 150))
    assert batch is not None
    batches.archive(filled, batch)
    rebuild = batches.form_rebuild(filled, [batch], None, "test", NIGHT)
    assert f"  queued: {rebuild.id} (rebuild)\n" in run.invoke(cli.app, ["triggers", "explain", *at]).output
    answer = json.loads(run.invoke(cli.app, ["triggers", "explain", "--json", *at]).output)
    assert answer[0]["queued"] == [{"batch": rebuild.id, "rebuild": True, "waits": None}]


def test_a_domain_that_is_not_there_is_named(filled: Home) -> None:
    """With those that are."""
    with pytest.raises(NotFound, match=r"nobody.*helper/git"):
        explanation.explain(filled, config.load(filled), ("nobody", ""), NIGHT)

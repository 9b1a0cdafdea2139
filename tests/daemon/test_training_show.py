"""`genome training show` and the bar of `status --watch`: what a person sees of a training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from trained_home import CONFIG, TrainedHome

from daemon import orders, service
from daemon.cli import following
from genome import config, jobs
from genome.config import Config
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.training import Event

EVENTS = [
    Event(event="started", time=1000.0),
    Event(event="progress", time=1001.0, step=0, steps=90, memory_mb=400.0,
          **{"signals": 20, "anchors": 300, "pairs": 7, "validation": 0, "cut": 2, "left_out": 1}),
    Event(event="progress", time=1005.0, step=40, steps=90, loss=2.0, losses=[4.0 - i / 20 for i in range(40)],
          tokens_per_second=1810.0, eta_seconds=75.0, memory_mb=560.0),
    Event(event="progress", time=1005.5, step=40, steps=90, validation_loss=2.5, best_validation_loss=2.5,
          best_step=40),
]  # fmt: skip


@pytest.fixture
def directory(home: Home, base_path: Path, signal: Callable[..., Any]) -> JobDirectory:
    """A job that trains, with what its trainer said."""
    config.init(home, str(base_path))
    trained = TrainedHome(home)
    made = trained.order(trained.batch([signal(i) for i in range(30)]))
    for event in EVENTS:
        made.record(event)
    return made


def test_all_that_is_known_of_a_training_is_shown(
    genome: Callable[..., Any], home: Home, directory: JobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal of 80 columns: examples, processes, steps, speed, memory, and both curves."""
    directory.record(Event(event="stopped", time=1006.0))
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = genome("training", "show", directory.id)
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert "examples signals 20, anchors 300, pairs 7, validation 0, cut 2, left out 1" in " ".join(out.split())
    for words in (f"{directory.id} of batch-", "rank 64", "stopped", "40 of 90; the weights after step 40 were kept",
                  "1,810", "560 MiB", "0:00:06", "loss, by step 1 to 40", "4.000 ┤█",
                  "validation loss, by step 40 to 40"):  # fmt: skip
        assert words in out, words


def test_a_program_gets_the_loss_of_every_step(genome: Callable[..., Any], home: Home, directory: JobDirectory) -> None:
    """As one object, with the verdict once there is one."""
    TrainedHome(home).train(directory)
    TrainedHome(home).judge(directory)
    code, out, _ = genome("training", "show", directory.id, "--json")
    found = json.loads(out)
    assert code == 0 and len(found["losses"]) == 40 and found["losses"]["40"] == pytest.approx(2.05)
    assert found["metrics"]["validation_loss"] == 2.5 and found["counts"]["left_out"] == 1
    assert (found["state"], found["verdict"]) == ("promoted", {"promote": True, "reason": "test"})
    assert found["adapter"] == "helper/git-v1.0" and len(found["processes"]) == 2


def test_a_job_that_never_ran_is_shown_too(
    genome: Callable[..., Any], home: Home, base_path: Path, signal: Callable[..., Any]
) -> None:
    """Its settings, and nothing that is not known."""
    config.init(home, str(base_path))
    trained = TrainedHome(home)
    made = trained.order(trained.batch([signal(i) for i in range(30)]))
    code, out, _ = genome("training", "show", made.id)
    assert code == 0 and "waiting" in out and "loss, by step" not in out and "None" not in out


def test_the_bar_has_every_fact_in_eighty_columns(
    home: Home, directory: JobDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps, loss, tokens a second, memory and the time left, with a bar between, also after a validation."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    looks = iter([lambda: None, lambda: jobs.hold(home, directory.id)])
    following.to_the_end_of_training(home, directory.id, lambda _seconds: next(looks)())
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err))
    shown = [line for line in lines if "40/90" in line]
    assert shown and max(map(len, shown)) <= 80
    for words in (directory.id, "━━", "loss 2.000", "1810 tok/s", "560 MiB", "0:01:15"):
        assert words in shown[-1], words


def test_a_training_is_watched_to_its_end(
    genome: Callable[..., Any], home: Home, directory: JobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status --watch` looks again until the job neither waits nor trains, and answers what became of it; without an
    id it is the newest."""
    rests: list[float] = []

    def trains_on(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 2:
            TrainedHome(home).train(directory)

    monkeypatch.setattr(following, "to_the_end_of_training", partial(following.to_the_end_of_training, rest=trains_on))
    code, out, err = genome("training", "status", "--watch", "--json")
    assert (code, len(rests)) == (0, 2) and f"{directory.id} 40/90" in err
    assert [found["state"] for found in json.loads(out)] == ["judging"]
    assert genome("training", "status", directory.id, "--watch", "--json")[:2] == (0, out) and len(rests) == 2


def test_a_client_is_told_the_same(directory: JobDirectory) -> None:
    """ListJobs has what the bar has; what the trainer has not said is not there."""
    told = service._job(jobs.summary(directory))
    assert (told.step, told.steps, told.loss, told.tokens_per_second) == (40, 90, 2.0, 1810.0)
    assert (told.eta_seconds, told.memory_mb, told.validation_loss) == (75.0, 560.0, 2.5)
    directory.events_file.unlink()
    assert not service._job(jobs.summary(directory)).HasField("eta_seconds")


def test_some_of_a_batch_is_only_measured_by(home: Home, signal: Callable[..., Any]) -> None:
    """As the config says, of its own signals alone; where poison is searched for, all are trained on."""
    measuring = Config.model_validate(
        CONFIG.model_dump() | {"training": CONFIG.training.model_dump() | {"validation_fraction": 0.2}}
    )
    trained = TrainedHome(home)
    batch = trained.batch([signal(i) for i in range(200)])
    made = jobs.find(home, orders.order(home, measuring, batch, Path("base"), "f" * 64).id)
    marked = [example.validation for example in jobs.read_examples(made.examples)]
    assert sum(marked) == int(0.2 * len(marked))
    part = tuple(example.id for example in jobs.read_examples(made.examples))
    probe = jobs.find(home, orders.probe(home, measuring, batch, (part, 1), (Path("base"), "f" * 64)).id)
    assert not any(example.validation for example in jobs.read_examples(probe.examples))


def test_nothing_is_kept_from_a_service_to_measure_by(home: Home, signal: Callable[..., Any]) -> None:
    """It measures nothing of ours, so all signals of the batch are sent to be trained on."""
    measuring = Config.model_validate(
        CONFIG.model_dump() | {"training": CONFIG.training.model_dump() | {
            "validation_fraction": 0.2, "trainer": "fireworks"},
            "fireworks": {"account": "a", "base_model": "accounts/fireworks/models/base"}}
    )  # fmt: skip
    batch = TrainedHome(home).batch([signal(i) for i in range(200)])
    made = jobs.find(home, orders.order(home, measuring, batch, Path("base"), "f" * 64).id)
    assert not any(example.validation for example in jobs.read_examples(made.examples))

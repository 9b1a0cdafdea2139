"""`genome training start --wait`: a job is followed on disk to its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import following
from genome import batches, config, files, jobs
from genome.batches import HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Intake
from genome.errors import Busy, Conflict
from genome.jobs import JobDirectory, Result
from genome.layout import Home
from genome.lines import from_signal
from genome.training import Event, Job, TrainingSettings

JOB = "job-2025-11-20-001"
NOBODY = "nothing more was to happen"


def order(home: Home, name: str = JOB) -> JobDirectory:
    job = Job(id=name, persona="helper", domain="git", batch="batch-2025-11-20-001", trainer="fake", base="base",
              base_fingerprint="f" * 64, settings=TrainingSettings(), created=0)  # fmt: skip
    return jobs.create(home, job, iter([]))


def in_turn(*acts: Callable[[], Any]) -> Callable[[float], None]:
    """What the daemon does while the command rests, one act at a time."""
    left: Iterator[Callable[[], Any]] = iter(acts)

    def rest(_seconds: float) -> None:
        next(left, lambda: pytest.fail(NOBODY))()

    return rest


def judged(directory: JobDirectory, promote: bool) -> None:
    files.write(directory.verdict_file, json.dumps({"promote": promote, "reason": "the numbers"}).encode())


@pytest.mark.parametrize(("promote", "state"), [(True, "promoted"), (False, "refused")])
def test_it_waits_for_the_verdict_to_be_carried_out(
    home: Home, capsys: pytest.CaptureFixture[str], promote: bool, state: str
) -> None:
    """Before the job is ordered, while it trains and is judged; a verdict alone is not the end. The bar goes to
    standard error."""
    here = JobDirectory(home.active_jobs / JOB)
    found = following.to_the_verdict(home, JOB, in_turn(
        lambda: order(home),
        lambda: here.record(Event(event="started")),
        lambda: here.record(Event(event="progress", step=3, steps=9, loss=1.5)),
        lambda: Result(adapter="helper/git-v1.0").write(here.result_file),
        lambda: judged(here, promote),
        lambda: jobs.complete(home, here),
    ))  # fmt: skip
    assert found is not None and (found["state"], found["reason"]) == (state, "the numbers")
    assert found["path"] == str(home.completed_jobs / JOB)
    assert capsys.readouterr().out == ""


def test_a_refused_batch_is_followed_to_its_last_attempt(home: Home) -> None:
    """While its batch is queued it is tried again: that job's verdict is the one that is waited for."""
    first, second = (JobDirectory(home.active_jobs / name) for name in (JOB, f"{JOB}.2"))
    queued = home.queued("helper", "git") / "batch-2025-11-20-001"

    def tried(here: JobDirectory, promote: bool) -> None:
        Result(adapter="helper/git-v1.0").write(here.result_file)
        judged(here, promote)
        jobs.complete(home, here)

    queued.mkdir(parents=True)
    found = following.to_the_verdict(home, JOB, in_turn(
        lambda: order(home), lambda: tried(first, False), lambda: order(home, second.id), lambda: tried(second, True),
    ))  # fmt: skip
    assert found is not None and (found["job"], found["state"]) == (second.id, "promoted")


def withdrawn(here: JobDirectory, home: Home) -> None:
    Result(reason="a signal was retracted", withdrawn=True).write(here.result_file)
    jobs.complete(home, here)


def test_a_withdrawn_job_is_followed_to_the_one_that_is_ordered_instead(home: Home) -> None:
    """While its batch is queued; attempts that were refused and those withdrawn both count for the next id."""
    first, second = (JobDirectory(home.active_jobs / name) for name in (JOB, f"{JOB}.2"))
    (home.queued("helper", "git") / "batch-2025-11-20-001").mkdir(parents=True)

    def promoted() -> None:
        Result(adapter="helper/git-v1.0").write(second.result_file)
        judged(second, True)
        jobs.complete(home, second)

    found = following.to_the_verdict(home, JOB, in_turn(
        lambda: order(home), lambda: withdrawn(first, home), lambda: order(home, second.id), promoted,
    ))  # fmt: skip
    assert (found["job"], found["state"]) == (second.id, "promoted")


def test_of_a_withdrawn_job_it_is_said_what_became_of_its_batch(home: Home, signal: Callable[..., Any]) -> None:
    """It is no failure that another start would mend."""
    Buffer(home, Intake()).accept([from_signal(signal(i)) for i in range(30)], 1_763_600_000.0)
    batch = batches.form(home, "helper", "git", "test", 1_763_600_000.0, HeldOutPolicy(0.3, 150))
    assert batch is not None and batch.id == jobs.of_batch(JOB)
    here = order(home)
    judged(here, True)
    withdrawn(here, home)
    batches.set_aside(home, batch, "every signal was retracted")
    with pytest.raises(Conflict, match=r"withdrawn: a signal was retracted.*set aside; genome buffer status says why"):
        following.to_the_verdict(home, JOB, in_turn())
    batches.release(home, batch)
    with pytest.raises(Conflict, match=r"pending again"):
        following.to_the_verdict(home, JOB, in_turn())


def test_a_failed_training_is_a_conflict(home: Home) -> None:
    """With the reason, and what to try."""
    here = order(home)
    with pytest.raises(Conflict, match=r"no memory.*tries again"):
        following.to_the_verdict(home, JOB, in_turn(
            lambda: Result(reason="no memory").write(here.result_file), lambda: jobs.complete(home, here)
        ))  # fmt: skip


def test_nobody_waits_for_what_does_not_run(home: Home) -> None:
    """A job that is held, or training that is paused, ends the waiting with what lets it go on."""
    order(home)
    with pytest.raises(Busy, match=f"training start --job {JOB}"):
        following.to_the_verdict(home, JOB, in_turn(lambda: jobs.hold(home, JOB)))
    jobs.release(home, JOB)
    with pytest.raises(Busy, match="continuous start"):
        following.to_the_verdict(home, JOB, in_turn(lambda: files.write(home.paused, b"")))


@pytest.mark.parametrize(("promote", "code"), [(True, 0), (False, 9)])
def test_the_exit_code_says_how_it_ended(
    home: Home, base_path: Path, signal: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, promote: bool, code: int
) -> None:
    """0 promoted, 9 refused; the answer is one object. Where no daemon runs, that is said at once."""
    from daemon import cli

    config.init(home, str(base_path))
    Buffer(home, Intake()).accept([from_signal(signal(i)) for i in range(30)], 1_763_600_000.0)

    def ends(_seconds: float) -> None:
        (batch,) = (path.name for path in home.queued("helper", "git").iterdir())
        job = order(home)
        named = JobDirectory(job.path.with_name(batch.replace("batch", "job")))
        job.path.rename(named.path)
        Result(adapter="helper/git-v1.0").write(named.result_file)
        judged(named, promote)
        batches.set_aside(home, batches.find(home, batch), "worse")
        jobs.complete(home, named)

    monkeypatch.setattr(following, "to_the_verdict", partial(following.to_the_verdict, rest=ends))
    monkeypatch.setattr("sys.argv", ["genome", "training", "start", "--persona", "helper", "--domain", "git",
                                     "--wait", "--json", "--home", str(home.root)])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert int(ended.value.code or 0) == code
    said = capsys.readouterr()
    assert json.loads(said.out)["reason"] == "the numbers" and "no daemon runs" in said.err

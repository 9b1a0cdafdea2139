"""Blame, show, retract and rebuild, as typed; and what a running daemon does of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fixed import NOW
from test_runner import CONFIG, runner
from trained_home import DOMAIN, PERSONA, TrainedHome, texts

from daemon import planner
from daemon.events import Announcer
from daemon.pruner import Pruner
from genome import adapters, batches, config, files, fsck, jobs, provenance, registry, retraction
from genome.jobs import Result
from genome.layout import Home


@pytest.fixture
def trained(home: Home, signal: Callable[..., Any], base_path: Path) -> TrainedHome:
    """Two versions, the second of which serves."""
    made = TrainedHome(home)
    config.init(home, str(base_path))
    for turn in range(2):
        made.turn([signal(100 * turn + i, id=f"signal-{turn}-{i:03d}") for i in range(10)])
    return made


def taught(home: Home, adapter: str) -> str:
    """One signal a version was trained on."""
    return next(each for each in provenance.versions(home)[adapter].signals if each.startswith("signal-1"))


def test_blame_goes_from_a_version_to_its_signals(genome: Callable[..., Any], trained: TrainedHome) -> None:
    """Parents, batch, job, verdict, and every signal with where it lies."""
    code, out, _ = genome("adapter", "blame", "helper/git-v1.1", "--json")
    found = json.loads(out)
    assert code == 0 and found["parents"] == ["helper/git-v1.0"] and found["verdict"]["promote"] is True
    assert (found["version"], found["tainted"]) == ("1.1", [])
    assert {each["state"] for each in found["signals"]} == {"archived"}
    assert (trained.home.root / found["signals"][0]["segment"]).is_file()
    text = genome("adapter", "blame", "helper/git-v1.1")[1]
    assert "promote: test" in text and found["signals"][0]["id"] in text
    assert genome("adapter", "blame", "helper/git-v9.0")[0] == 4


def test_show_goes_from_a_signal_to_its_versions(genome: Callable[..., Any], trained: TrainedHome) -> None:
    """State, place, batch, jobs, versions, and which of them serve."""
    wanted = taught(trained.home, "helper/git-v1.1")
    code, out, _ = genome("signal", "show", wanted[:12], "--json")
    found = json.loads(out)
    assert code == 0 and found["id"] == wanted and (found["state"], found["part"]) == ("archived", "trained")
    assert found["trained"] == found["serving"] == ["helper/git-v1.1"] and found["origin"] is None
    text = genome("signal", "show", wanted)[1]
    assert "helper/git-v1.1" in text and "came over gRPC" in text
    assert genome("signal", "show", "signal-0")[0] == 5 and genome("signal", "show", "nowhere-to-be-found")[0] == 4


def test_a_retraction_marks_and_rebuilds(genome: Callable[..., Any], trained: TrainedHome) -> None:
    """It says what it did; list, status, blame and show tell of it; deploying the marked version warns."""
    home, wanted = trained.home, taught(trained.home, "helper/git-v1.1")
    code, out, _ = genome("signal", "retract", wanted, "--reason", "not ours", "--json")
    done = json.loads(out)
    assert code == 0 and (done["was"], done["adapters"], done["inbox"]) == ("archived", ["helper/git-v1.1"], [])
    rows = {row["id"]: row for row in json.loads(genome("adapter", "list", "--json")[1])}
    assert rows["helper/git-v1.1"]["tainted"] == [wanted] and rows["helper/git-v1.0"]["tainted"] == []
    assert "by 1" in genome("adapter", "list")[1]
    assert json.loads(genome("status", "--json")[1])["personas"][0]["tainted"] == {"helper/git-v1.1": [wanted]}
    text = genome("status")[1]
    assert "1 retracted" in text and "tainted  helper/git-v1.1" in text
    assert wanted in genome("adapter", "blame", "helper/git-v1.1")[1]
    assert "retracted: not ours" in genome("signal", "show", wanted)[1]
    assert genome("adapter", "rollback", "--persona", "helper")[2] == ""
    code, _, warned = genome("adapter", "deploy", "helper/git-v1.1")
    assert code == 0 and "1 retracted signals" in warned
    again = json.loads(genome("signal", "retract", wanted, "--reason", "other", "--json")[1])
    assert (again["reason"], again["rebuild"]) == ("not ours", done["rebuild"])
    assert fsck.check(home).problems == () and fsck.check(home).counts["retracted"] == 1
    assert json.loads(genome("buffer", "status", "--json")[1])["domains"][0]["retracted"] == 1


def test_a_rebuild_by_hand_says_where_it_begins(genome: Callable[..., Any], trained: TrainedHome) -> None:
    """From the base where nothing was retracted; a retraction goes on from the newest clean version."""
    code, out, _ = genome("training", "rebuild", "--persona", PERSONA, "--domain", DOMAIN, "--json")
    found = json.loads(out)
    assert code == 0 and found["parent"] is None and len(found["rebuilds"]) == 2
    genome("signal", "retract", taught(trained.home, "helper/git-v1.1"), "--reason", "x")
    text = genome("training", "rebuild", "--persona", PERSONA, "--domain", DOMAIN)[1]
    assert "1 batches again, from helper/git-v1.0" in text
    assert genome("training", "rebuild", "--persona", PERSONA, "--domain", "none")[0] == 4


def test_what_keeps_a_rebuild_waiting_is_said(genome: Callable[..., Any], trained: TrainedHome) -> None:
    """No daemon, training that is paused, a persona that is pinned; nothing of it where nothing is to be trained."""
    home = trained.home
    wanted = taught(home, "helper/git-v1.1")
    trained.accept([])
    genome("adapter", "pin", "--persona", PERSONA)
    genome("continuous", "stop")
    out = genome("signal", "retract", wanted, "--reason", "x")[1]
    assert "no daemon runs" in out and "training is paused" in out and f"adapter unpin --persona {PERSONA}" in out
    with files.locked(home.daemon_lock):
        genome("continuous", "start")
        assert json.loads(genome("signal", "retract", wanted, "--reason", "x", "--json")[1])["waits"] == [
            f"{PERSONA} is pinned: nothing else is served until: genome adapter unpin --persona {PERSONA}"
        ]


def test_a_held_out_signal_that_was_trained_later_is_shown_so(
    genome: Callable[..., Any], trained: TrainedHome, signal: Callable[..., Any]
) -> None:
    """The next batch trains it; until then it is held out."""
    first = trained.turn([signal(500 + i, id=f"measured-{i:03d}") for i in range(10)])
    held = batches.archived(trained.home, PERSONA, DOMAIN)[-1].held_out[0]
    assert json.loads(genome("signal", "show", held, "--json")[1])["part"] == "held out"
    trained.turn([signal(700 + i) for i in range(10)])
    found = json.loads(genome("signal", "show", held, "--json")[1])
    assert found["part"] == "held out, trained later" and first not in found["trained"] and found["trained"]


async def test_a_running_trainer_is_stopped(trained: TrainedHome, signal: Callable[..., Any]) -> None:
    """Its job ends as failed, its checkpoints go, and its batch is ordered again; nothing of it is installed."""
    home, run = trained.home, runner(trained.home, "waits")
    batch = trained.batch([signal(900 + i, id=f"running-{i:03d}") for i in range(10)])
    directory = trained.order(batch)
    wanted = next(each.id for each in jobs.read_examples(directory.examples) if each.id.startswith("running"))
    with files.locked(home.daemon_lock), run.announcer.watch() as events:
        async with anyio.create_task_group() as group:
            group.start_soon(run.step)
            async for event in events:
                if event.name == "training_checkpoint":
                    await anyio.to_thread.run_sync(retraction.retract, home, wanted, "test", NOW)
                    run.interrupt.ring()
                if event.name == "training_stopped":
                    break
    ended = jobs.find(home, directory.id)
    assert ended.path.parent == home.completed_jobs and ended.state() == "failed"
    assert not home.checkpoints(directory.id).exists() and texts(home, wanted.encode())
    assert len(adapters.list_ids(home)) == 2 and [again.id for again in planner.unordered(home)] == [batch.id]
    assert fsck.check(home).problems == ()


@pytest.mark.parametrize("late", [False, True])
async def test_a_training_that_ends_after_all_is_no_candidate(
    trained: TrainedHome, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Withdrawn between its last word and its result, nothing of it waits for the gate, and what is there is marked."""
    home, run = trained.home, runner(trained.home, "works")
    directory = trained.order(trained.batch([signal(900 + i, id=f"running-{i:03d}") for i in range(10)]))
    wanted = next(each.id for each in jobs.read_examples(directory.examples) if each.id.startswith("running"))
    real, act = (run._conclude, "_conclude") if late else (run._install, "_install")

    def withdrawn_first(*arguments: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(files, "is_held", lambda _path: True)  # the daemon is this process
            retraction.retract(home, wanted, "test", NOW)
        return real(*arguments)

    monkeypatch.setattr(run, act, withdrawn_first)
    await run.step()
    assert jobs.find(home, directory.id).state() == "failed"
    made = [str(each) for each in adapters.list_ids(home)]
    assert len(made) == (3 if late else 2)
    assert provenance.tainted(home, made[-1]) == ((wanted,) if late else ())


async def test_a_version_knows_what_it_was_trained_on(trained: TrainedHome, signal: Callable[..., Any]) -> None:
    """The runner writes it into the manifest: jobs are pruned, and adapters live on."""
    home = trained.home
    directory = trained.order(trained.batch([signal(900 + i) for i in range(10)]))
    await runner(home, "works").step()
    examples = {each.id for each in jobs.read_examples(directory.examples) if not each.anchor}
    assert set(adapters.manifest(home, "helper/git-v1.2").signals) == examples and len(examples) > 7


async def test_what_serves_and_is_marked_is_told(trained: TrainedHome) -> None:
    """By the daemon, when it starts and daily, until something clean serves; it ends what was interrupted, too."""
    home, announcer = trained.home, Announcer()
    outcome = retraction.retract(home, taught(home, "helper/git-v1.1"), "test", NOW)
    files.move(*(place(PERSONA, DOMAIN) for place in (home.retracted, home.retracting)))
    with announcer.watch() as events:
        await Pruner(home, CONFIG, announcer).step()
        event = await anext(aiter(events))
    assert event.name == "retracted_served"
    assert event.facts["adapter"] == "helper/git-v1.1" and event.facts["signals"] == 1
    assert not list(home.retracting(PERSONA, DOMAIN).iterdir())
    assert outcome.rebuild is not None
    trained.carry_through(outcome.rebuild)
    assert retraction.served(home) == {} and registry.stack_of(home, PERSONA)[0].adapter == "helper/git-v1.2"


def test_a_withdrawn_job_is_not_tried_again_by_hand(
    genome: Callable[..., Any], trained: TrainedHome, signal: Callable[..., Any]
) -> None:
    """Its batch is ordered again by itself, and would be trained twice."""
    directory = trained.order(trained.batch([signal(900 + i, id=f"running-{i:03d}") for i in range(10)]))
    wanted = next(each.id for each in jobs.read_examples(directory.examples) if each.id.startswith("running"))
    genome("signal", "retract", wanted, "--reason", "x")
    assert (jobs.find(trained.home, directory.id).result() or Result()).withdrawn
    code, _, error = genome("training", "start", "--job", directory.id)
    assert code == 5 and "ordered again by itself" in error

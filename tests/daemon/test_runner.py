"""Training as a child process: what it may do wrong, and that its batch survives all of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fixed import NOW, ROOT

from daemon import actions, orders, planner, process, supervisor
from daemon.events import Alarm, Announcer
from daemon.events import Event as Told
from daemon.runner import MOST_GARBAGE_TOLD, Runner, TrainerFailed
from genome import adapters, bases, batches, files, fsck, jobs, lora
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.errors import Conflict, DiskFull, InvalidAdapter
from genome.fairness import Waiting
from genome.jobs import JobDirectory, Result
from genome.layout import Home
from genome.lines import from_signal
from genome.training import EXIT_STOPPED, Event, Example, Job

CONFIG = Config.model_validate(
    {"base": "base", "training": {"max_starts": 2, "trainer": "command", "command": [sys.executable]}}
)
FAKE = ROOT / "tests" / "fake_trainer.py"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that jobs here name is there."""
    monkeypatch.setattr(bases, "resolve", Path)
    monkeypatch.setattr(bases, "fingerprint", lambda path: {"base": "f" * 64}.get(str(path), "e" * 64))


@pytest.fixture
def ordered(home: Home, signal: Callable[..., Any]) -> JobDirectory:
    """A queued batch of ten signals with its job."""
    into = Buffer(home, Intake())
    into.accept([from_signal(signal(i)) for i in range(10)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    job = Job(
        id="job-2025-11-20-001", persona="helper", domain="git", batch=batch.id, trainer="command", base="base",
        base_fingerprint="f" * 64, settings=CONFIG.training.settings(Path("base")), created=0,
    )  # fmt: skip
    return jobs.create(home, job, iter([Example(id="a", prompt="q", response="a")]))


def runner(home: Home, mode: str) -> Runner:
    """A runner whose trainer is the fake one."""

    def command(_trainer: str, job: Path, checkpoints: Path) -> list[str]:
        return [sys.executable, str(FAKE), mode, str(job), str(checkpoints)]

    return Runner(home, CONFIG, Announcer(), Alarm(), command)


async def test_a_finished_training_becomes_a_candidate(home: Home, ordered: JobDirectory) -> None:
    """The adapter is installed with a manifest that names its job, and its checkpoints are gone."""
    await runner(home, "works").step()
    result = ordered.result()
    assert result is not None and result.adapter == "helper/git-v1.0" and ordered.state() == "judging"
    made = adapters.manifest(home, "helper/git-v1.0")
    assert (made.job, made.batch, made.metrics["last_loss"]) == (ordered.id, "batch-2025-11-20-001", 1.5)
    assert not home.checkpoints(ordered.id).exists()


async def test_a_crash_after_the_install_makes_no_second_candidate(home: Home, ordered: JobDirectory) -> None:
    """The job finds the candidate it made; nothing is trained twice."""
    await runner(home, "works").step()
    ordered.result_file.unlink()
    await runner(home, "fails").step()
    assert [str(known) for known in adapters.list_ids(home)] == ["helper/git-v1.0"]
    assert ordered.state() == "judging"


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("fails", "there is no memory left"),
        ("crashes", "killed by signal 9: the machine probably ran out of memory. Lower training.batch_size"),
        ("crashes", "Traceback: it went wrong here"),
        ("stops by itself", "exit status 75"),
        ("exits 137", "exit status 137: the machine probably ran out of memory. Lower training.batch_size"),
    ],
)
async def test_a_failing_trainer_is_started_again_then_given_up(
    home: Home, ordered: JobDirectory, base: None, mode: str, reason: str
) -> None:
    """The reason is kept with the job, the batch stays queued, and `training start --job` tries again."""
    run = runner(home, mode)
    with anyio.fail_after(60), pytest.raises(TrainerFailed, match=reason):
        await run.step()
    told: list[Told] = []
    run.announcer.listeners.append(told.append)
    await run.step()
    assert told[-1].name == "job_failed" and reason in told[-1].facts["reason"]
    assert (told[-1].facts["persona"], told[-1].facts["domain"]) == ("helper", "git")
    failed = jobs.find(home, ordered.id)
    result = failed.result()
    assert failed.state() == "failed" and result is not None and reason in (result.reason or "")
    assert [batch.id for batch in batches.queued(home, "helper", "git")] == ["batch-2025-11-20-001"]
    actions.start(home, CONFIG, "", "", ordered.id)
    await runner(home, "works").step()
    assert ordered.state() == "judging"


@pytest.mark.parametrize("mode", ["nothing", "half", "no config", "torn"])
async def test_success_without_a_whole_adapter_is_a_failure(
    home: Home, ordered: JobDirectory, signal: Callable[..., Any], mode: str
) -> None:
    """Exit 0 alone promotes nothing, nor does a finished training that left part of one; the next job runs."""
    after = order(home, signal, 2, "other")
    run = runner(home, mode)
    run.command = only(home, ordered.id, run.command, "works")
    with anyio.fail_after(60):
        await run.step()
    result = jobs.find(home, ordered.id).result()
    assert result is not None and result.adapter is None and "unusable" in (result.reason or "")
    assert [batch.id for batch in batches.queued(home, "helper", "git")] == ["batch-2025-11-20-001"]
    assert after.state() == "judging" and len(adapters.list_ids(home)) == 1


@pytest.mark.parametrize("mode", ["hangs", "hangs and leaves a checkpoint", "closes its output", "babbles"])
async def test_a_trainer_that_says_nothing_is_stopped(
    home: Home, ordered: JobDirectory, signal: Callable[..., Any], mode: str
) -> None:
    """No event for the heartbeat: it is ended, by KILL where TERM is not heard. What is no event is no sign of life,
    and a checkpoint left on the way out is no stop that was asked for. Its batch is kept, and the next job runs."""
    after = order(home, signal, 2, "other")
    run = runner(home, mode)
    run.command = only(home, ordered.id, run.command, "works")
    run.config = CONFIG.model_copy(update={
        "training": CONFIG.training.model_copy(update={"heartbeat_seconds": 2.0}),
        "daemon": CONFIG.daemon.model_copy(update={"shutdown_seconds": 0.2 if mode != "hangs and leaves a checkpoint"
                                                   else 60.0}),
    })  # fmt: skip
    with anyio.fail_after(60), pytest.raises(TrainerFailed, match="it said nothing for 2 s"):
        await run.step()
    pid = int((home.checkpoints(ordered.id) / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await run.step()
    result = jobs.find(home, ordered.id).result()
    assert result is not None and (result.reason or "").endswith("it said nothing for 2 s")
    assert [batch.id for batch in batches.queued(home, "helper", "git")] == ["batch-2025-11-20-001"]
    assert after.state() == "judging"


def only(home: Home, job: str, command: Callable[..., list[str]], others: str) -> Callable[..., list[str]]:
    """The command for one job; the fake trainer's mode ``others`` for all the rest."""

    def chosen(trainer: str, directory: Path, checkpoints: Path) -> list[str]:
        mine = command if directory.name == job else runner(home, others).command
        return mine(trainer, directory, checkpoints)

    return chosen


async def test_a_full_disk_fails_no_job(home: Home, ordered: JobDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room to install what was trained is told and tried again, until there is."""

    def full(*_arguments: Any) -> None:
        raise DiskFull("no room to write the adapter")

    with monkeypatch.context() as patched, pytest.raises(DiskFull):
        patched.setattr(adapters, "install", full)
        await runner(home, "works").step()
    shutil.rmtree(home.checkpoints(ordered.id) / "adapter")  # the fake trainer makes it anew
    await runner(home, "works").step()
    assert ordered.state() == "judging"


async def test_a_disk_that_stays_broken_fails_the_job_in_the_end(
    home: Home, ordered: JobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that cannot be read is read again by the next start; max_starts counts those, too."""

    def broken(*_arguments: Any) -> None:
        raise InvalidAdapter("it cannot be read") from OSError(5, "Input/output error")

    monkeypatch.setattr(lora, "read", broken)
    run = runner(home, "works")
    with pytest.raises(InvalidAdapter):
        await run.step()
    assert ordered.result() is None
    shutil.rmtree(home.checkpoints(ordered.id) / "adapter")  # the fake trainer makes it anew
    await run.step()
    assert jobs.find(home, ordered.id).state() == "failed"


async def test_garbage_on_its_output_is_passed_over(home: Home, ordered: JobDirectory) -> None:
    """Binary, no UTF-8, a thousand lines, and 10 MB without a newline: neither ends a training, fills the log, nor is
    held in memory; an event after it is heard."""
    run = runner(home, "garbage")
    told: list[Told] = []
    run.announcer.listeners.append(told.append)
    tracemalloc.start()
    await run.step()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ordered.state() == "judging"
    assert highest < 8 * process.MAX_LINE_BYTES
    assert sum(event.name == "trainer_said" for event in told) == MOST_GARBAGE_TOLD
    assert [event.step for event in ordered.events() if event.event == "progress"] == [1, 2]


async def test_an_event_whose_numbers_are_none_is_no_event(home: Home, ordered: JobDirectory) -> None:
    """NaN and infinity could not be read again: such a line is passed over like any other that is no event."""
    run = runner(home, "no numbers")
    told: list[Told] = []
    run.announcer.listeners.append(told.append)
    await run.step()
    assert ordered.state() == "judging"
    assert sum(event.name == "trainer_said" for event in told) == 12
    assert [event.step for event in ordered.events() if event.event == "progress"] == [1, 2]


async def test_a_fact_may_have_any_name(home: Home, ordered: JobDirectory) -> None:
    """Trainers may say more than there are words for: what they call it neither ends a training nor changes whose event
    it is."""
    run = runner(home, "any name")
    told: list[Told] = []
    run.announcer.listeners.append(told.append)
    await run.step()
    assert ordered.state() == "judging"
    assert [event.step for event in ordered.events() if event.event == "progress"] == [1, 2, 2, 2, 2]
    assert {event.facts["job"] for event in told} == {ordered.id}


async def test_an_event_that_cannot_be_read_stops_nothing(home: Home, ordered: JobDirectory) -> None:
    """Written by an earlier version, or damaged: it is passed over, and fsck names it."""
    torn = b'{"event":"progress","time":1.0,"step":1,"losses":[null]}'
    ordered.events_file.write_bytes(b'{"event":"started","time":0.0}\n' + torn + b"\n")
    assert [event.event for event in ordered.events()] == ["started"]
    assert [problem.what for problem in fsck.check(home).problems if problem.path == ordered.events_file] == [
        "line 2 is no event"]  # fmt: skip
    await runner(home, "works").step()
    assert ordered.state() == "judging"


async def test_an_overlong_line_ends_at_its_newline(tmp_path: Path) -> None:
    """Its beginning is given, and what follows its newline is a line of its own."""
    code = "print('a' * 3_000_000 + chr(10) + 'next' + chr(10) + 'no newline', end='')"
    async with process.spawn([sys.executable, "-c", code], tmp_path / "lock", tmp_path / "log", {}) as child:
        lines = [line async for line in child.lines()]
    assert lines == [b"a" * process.MAX_LINE_BYTES, b"next"]


async def test_what_was_measured_is_kept_with_the_adapter(home: Home, ordered: JobDirectory) -> None:
    """The manifest has the last loss, steps, speed, memory at its highest and the time it took."""
    await runner(home, "works").step()
    kept = adapters.manifest(home, "helper/git-v1.0").metrics
    assert {name: kept[name] for name in kept if name != "train_seconds"} == {
        "last_loss": 1.5, "steps": 2, "tokens_per_second": 100.0, "memory_mb": 64.0
    }  # fmt: skip
    assert 0 < kept["train_seconds"] < 60


async def test_learning_yields_to_serving(home: Home, ordered: JobDirectory) -> None:
    """Promise 9: a trainer, also one that is not ours, is niced by 10 and told how many threads it has."""
    job = ordered.job()
    job.model_copy(update={"settings": job.settings.model_copy(update={"threads": 3})}).write(ordered.path / "job.json")
    run, checkpoints = runner(home, "waits"), home.checkpoints(job.id)
    async with anyio.create_task_group() as group:
        group.start_soon(run.step)
        await until_told(run, "training_checkpoint")
        pid = int((checkpoints / "pid").read_text())
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)
        group.cancel_scope.cancel()
    told = json.loads((checkpoints / "environment").read_text())
    assert {told[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                                    "VECLIB_MAXIMUM_THREADS")} == {"3"}  # fmt: skip


async def test_a_held_job_stops_at_a_checkpoint_and_goes_on_when_released(home: Home, ordered: JobDirectory) -> None:
    """`training stop` sends TERM, waits for the checkpoint, and does not count as a failed start."""
    run = runner(home, "waits")
    async with anyio.create_task_group() as group:
        group.start_soon(run.step)
        await until_told(run, "training_checkpoint")
        await anyio.to_thread.run_sync(jobs.hold, home, ordered.id)
        run.interrupt.ring()
        await until_told(run, "training_stopped")
    assert ordered.state() == "held" and ordered.starts() == 0
    jobs.release(home, ordered.id)
    await runner(home, "works").step()
    assert ordered.state() == "judging"


def test_a_start_that_was_stopped_is_counted_off_once(ordered: JobDirectory) -> None:
    """Trainer and runner both say that it stopped; a trainer that says so and fails has failed."""
    for event in ("started", "progress", "stopped", "stopped", "started", "failed", "started", "stopped", "failed"):
        ordered.record(Event(event=event))
    assert ordered.starts() == 2
    ordered.record(Event(event="started"))
    assert ordered.starts() == 3


async def test_paused_training_starts_nothing(home: Home, ordered: JobDirectory) -> None:
    """`continuous stop` holds every job, `continuous start` lets them go on."""
    actions.pause(home)
    await runner(home, "works").step()
    assert ordered.state() == "waiting"
    actions.resume(home)
    await runner(home, "works").step()
    assert ordered.state() == "judging"


async def test_a_stopping_daemon_lets_the_trainer_finish_its_checkpoint(home: Home, ordered: JobDirectory) -> None:
    """Cancelling the loop asks with TERM first; the job waits to be gone on with."""
    run = runner(home, "waits")
    async with anyio.create_task_group() as group:
        group.start_soon(run.step)
        await until_told(run, "training_checkpoint")
        group.cancel_scope.cancel()
    assert ordered.events()[-1].event == "stopped" and ordered.state() == "waiting"


async def test_a_trainer_left_by_a_killed_daemon_is_ended_first(home: Home, ordered: JobDirectory) -> None:
    """Two trainers never work on one job: the leftover gets TERM and time for its checkpoint."""
    lock = home.checkpoints(ordered.id) / "lock"
    command = runner(home, "waits").command("fake", ordered.path, home.checkpoints(ordered.id))
    async with process.spawn(command, lock, ordered.log, {}) as child:
        async for line in child.lines():
            if b"checkpoint" in line:
                break
        assert await anyio.to_thread.run_sync(process.end_leftover, lock, 60.0)
        assert await child.wait() == EXIT_STOPPED
    assert not await anyio.to_thread.run_sync(process.end_leftover, lock, 60.0)


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    """TERM, the grace, then KILL for its whole session."""
    code = "import signal,sys; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    async with process.spawn([sys.executable, "-c", code], tmp_path / "lock", tmp_path / "log", {}) as child:
        assert await anext(child.lines()) == b"ready"
        assert await child.stop(0.05) == -9
        with pytest.raises(ProcessLookupError):
            os.kill(child.process.pid, 0)


async def until_told(run: Runner, name: str) -> None:
    """Returns when the runner tells an event of that name."""
    with run.announcer.watch() as events:
        async for event in events:
            if event.name == name:
                return


async def test_a_job_given_up_by_a_killed_daemon_blocks_nothing(home: Home, ordered: JobDirectory) -> None:
    """Killed between the result and the move, the next daemon moves it: its domain can train again."""
    Result(reason="it failed three times").write(ordered.result_file)
    await runner(home, "works").step()
    assert jobs.active(home) == [] and [done.state() for done in jobs.completed(home)] == ["failed"]


async def test_a_failed_job_is_ordered_again_with_todays_settings(
    home: Home, ordered: JobDirectory, base: None
) -> None:
    """What its failure said to lower is lowered: the batch gets another job, and what the old one had learned goes."""
    Result(reason="no memory", train_seconds=7.0).write(ordered.result_file)
    failed = jobs.complete(home, ordered)
    files.write(home.checkpoints(failed.id) / "step-1", b"")
    lower = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"rank": 8})})
    again = actions.start(home, lower, "", "", failed.id)
    assert again.job == f"{failed.id}.2" and not home.checkpoints(failed.id).exists()
    result = failed.result()
    assert result is not None and result.withdrawn and result.train_seconds == 7.0
    assert result.reason == "asked for again with other settings; it had failed: no memory"
    with pytest.raises(Conflict, match="ordered again by itself"):
        actions.start(home, lower, "", "", failed.id)
    (batch,) = planner.unordered(home)
    made = orders.order(home, lower, batch, Path("base"), "f" * 64)
    assert (made.id, made.attempt, made.settings.rank) == (again.job, 1, 8)


async def test_a_failed_job_whose_settings_are_todays_goes_on_from_its_checkpoint(
    home: Home, ordered: JobDirectory, base: None
) -> None:
    """Also a later attempt, whose settings are those of its rung; and one whose batch waits no more, as it is."""
    Result(reason="no memory").write(ordered.result_file)
    failed = jobs.complete(home, ordered)
    files.write(home.checkpoints(failed.id) / "step-1", b"")
    assert actions.start(home, CONFIG, "", "", failed.id).job == failed.id
    assert (home.checkpoints(failed.id) / "step-1").exists() and ordered.state() == "waiting"
    halved = ordered.job().settings.model_copy(update={"learning_rate": ordered.job().settings.learning_rate / 2})
    later = ordered.job().model_copy(update={"attempt": 2, "settings": halved})
    today = Path("base"), "f" * 64
    assert orders.is_current(CONFIG, later, *today)
    others = ({"trainer": "torch"}, {"attempt": 1}, {"copy_of": "base", "base": "copy"}, {"base": "moved"},
              {"base_fingerprint": "e" * 64})  # fmt: skip
    for other in others:
        assert not orders.is_current(CONFIG, later.model_copy(update=other), *today)
    ordered.job().model_copy(update={"batch": "batch-2025-11-20-009"}).write(ordered.path / "job.json")
    Result(reason="no memory").write(ordered.result_file)
    other_rank = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"rank": 8})})
    assert actions.start(home, other_rank, "", "", jobs.complete(home, ordered).id).job == failed.id


async def test_a_retry_that_was_killed_can_be_asked_for_again(
    home: Home, ordered: JobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it dies, the job is a failed one that can be retried, or one that waits: never neither."""
    Result(reason="it failed three times").write(ordered.result_file)
    failed = jobs.complete(home, ordered)
    for dies_at in range(4):
        acts: list[Path] = []

        def dying(
            act: Callable[..., None], path: Path, *more: Path, dies: int = dies_at, acts: list[Path] = acts
        ) -> None:
            acts.append(path)
            if len(acts) > dies:
                raise KeyboardInterrupt
            act(path, *more)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            for name in ("move", "remove"):
                patch.setattr(files, name, partial(dying, getattr(files, name)))
            jobs.retry(home, jobs.find(home, failed.id))
        if jobs.find(home, failed.id).state() == "waiting":
            break
        await runner(home, "works").step()  # a failed one that lies among the active ones is put back
        assert [done.state() for done in jobs.completed(home)] == ["failed"], dies_at
    assert jobs.find(home, failed.id).path.parent == home.active_jobs


def test_a_job_is_ordered_once(home: Home, ordered: JobDirectory) -> None:
    """Ordered again while it is active or after it ended, it is the one that is there."""
    job = ordered.job()
    assert jobs.create(home, job, iter([]), held=True).path == ordered.path and not ordered.held.exists()
    Result(reason="no").write(ordered.result_file)
    done = jobs.complete(home, ordered)
    assert jobs.create(home, job, iter([])).path == done.path and jobs.active(home) == []


def order(home: Home, signal: Callable[..., Any], number: int, persona: str, domain: str = "git") -> JobDirectory:
    """A further queued batch with its job."""
    into = Buffer(home, Intake())
    questions = range(10 * number, 10 * number + 10)
    into.accept([from_signal(signal(i, personaId=persona, domain=domain)) for i in questions], NOW)
    batch = batches.form(home, persona, domain, "test", NOW, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    job = Job(
        id=f"job-2025-11-20-{number:03d}", persona=persona, domain=domain, batch=batch.id, trainer="command",
        base="base", base_fingerprint="f" * 64, settings=CONFIG.training.settings(Path("base")), created=0,
    )  # fmt: skip
    return jobs.create(home, job, iter([Example(id="a", prompt="q", response="a")]))


async def started(run: Runner) -> list[str]:
    """Which jobs a step starts, in order."""
    with run.announcer.watch() as events:
        await run.step()
        found = []
        with suppress(anyio.WouldBlock):
            while True:
                event = events.receive_nowait()  # type: ignore[attr-defined]
                found += [event.facts["job"][-1]] if event.name == "training_started" else []
    return found


async def test_a_job_that_worked_ends_the_trouble_before_the_next(home: Home, signal: Callable[..., Any]) -> None:
    """A step may train for days: what failed before its first job is over when that job is."""
    order(home, signal, 1, "helper")
    order(home, signal, 2, "other")
    run, seen = runner(home, "works"), []
    run.succeeded = lambda: seen.append([found.state() for found in jobs.active(home)])
    await run.step()
    assert seen == [["judging", "waiting"], ["judging", "judging"]]
    made = await supervisor.compose(home, CONFIG, None, home.root, "f" * 64)  # type: ignore[arg-type]
    made._failed("runner", TrainerFailed("once"))
    with made.announcer.watch() as events:
        made.runners[0].succeeded()
        assert (await anext(aiter(events))).name == "recovered" and made.trouble == {}


async def test_personas_take_turns(home: Home, signal: Callable[..., Any]) -> None:
    """Nobody waits behind another's whole queue; after a restart the turns go on from what the disk says."""
    for number, domain in enumerate(("git", "maths", "law"), 1):
        order(home, signal, number, "helper", domain)
    order(home, signal, 4, "other")
    assert await started(runner(home, "works")) == ["1", "4", "2", "3"]
    order(home, signal, 5, "helper", "chess")
    order(home, signal, 6, "other", "chess")
    assert await started(runner(home, "works")) == ["6", "5"]


async def test_as_many_jobs_train_at_once_as_are_allowed(home: Home, signal: Callable[..., Any]) -> None:
    """Each runner has a job of its own, and a domain trains one at a time: the third waits for its turn."""
    first = order(home, signal, 1, "helper")
    same_domain = order(home, signal, 2, "helper")
    other = order(home, signal, 3, "other")
    runners = [runner(home, "waits") for _ in range(3)]
    for number, run in enumerate(runners):
        run.name, run.claims = f"runner-{number}", runners[0].claims
    async with anyio.create_task_group() as group:
        for run in runners[:2]:
            group.start_soon(run.step)
            await until_told(run, "training_checkpoint")
        await runners[2].step()
        assert [first.state(), same_domain.state(), other.state()] == ["training", "waiting", "training"]
        group.cancel_scope.cancel()
    assert [first.state(), same_domain.state(), other.state()] == ["waiting"] * 3


async def test_a_failed_job_is_tried_again_by_nobody_sooner(home: Home, ordered: JobDirectory) -> None:
    """While one runner waits to try it again, another that is woken leaves it alone."""
    failing, other = runner(home, "fails"), runner(home, "works")
    other.name, other.claims = "runner-2", failing.claims
    with pytest.raises(TrainerFailed):
        await failing.step()
    await other.step()
    assert ordered.result() is None and ordered.starts() == 1


async def test_a_job_that_is_being_given_up_is_left_to_whoever_does(home: Home, ordered: JobDirectory) -> None:
    """Between its result and its move nobody else moves it."""
    other = runner(home, "works")
    other.claims.jobs["runner-2"] = Waiting(ordered.id, "helper", "git")
    Result(reason="it failed three times").write(ordered.result_file)
    await other.step()
    assert [found.id for found in jobs.active(home)] == [ordered.id]


async def test_the_daemon_has_a_runner_for_each_job_at_once(home: Home) -> None:
    """As many as training.max_jobs says, each with its alarm, and all keep apart by the same claims."""
    config = Config.model_validate({"base": "base", "training": {"max_jobs": 3}})
    made = await supervisor.compose(home, config, None, home.root, "f" * 64)  # type: ignore[arg-type]
    assert [run.name for run in made.runners] == ["runner", "runner-2", "runner-3"]
    assert {run.name for run in made.runners} <= made.alarms.keys()
    assert [loop.name for loop in made.loops if loop in made.runners] == [run.name for run in made.runners]
    assert len({id(run.claims) for run in made.runners}) == 1
    made.planner.runner.ring()
    assert all(made.alarms[run.name].event.is_set() for run in made.runners)

"""What is taken back is gone from every file, and is never trained on again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trained_home
from fixed import NOW
from hypothesis import given
from hypothesis import strategies as st
from trained_home import DOMAIN, PERSONA, SECRET, Make, TrainedHome, retract, secret, texts, trains, whole

from daemon import orders, planner, status, supervisor
from genome import (
    batches,
    curriculum,
    files,
    fsck,
    jobs,
    pending,
    provenance,
    pruning,
    rebuilding,
    registry,
    retraction,
    segments,
    tombstones,
)
from genome.batches import HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Intake, Prune
from genome.errors import InvalidInput
from genome.jobs import Result
from genome.layout import Home
from genome.lines import Line, from_signal
from genome.segments import Origin, Stored
from genome.training import Event

EVERYTHING = pruning.DAY * 1000


def test_a_pending_signal_goes_and_its_neighbours_stay(trained: TrainedHome, signal: Make) -> None:
    """Its line has the same length and stands for its id; no other byte of the segment changes, and none is pending."""
    home = trained.home
    trained.accept([signal(1), secret(signal), signal(2)])
    (path,) = home.pending(PERSONA, DOMAIN).glob("*.jsonl")
    before = path.read_bytes().splitlines(keepends=True)
    tally = pending.Tally()
    assert tally.pending(home, PERSONA, DOMAIN).examples == 3
    outcome = retract(home)
    after = path.read_bytes().splitlines(keepends=True)
    assert (after[0], after[2], len(after[1])) == (before[0], before[2], len(before[1]))
    left = json.loads(after[1])["signal"]
    assert left == {"id": "the-secret", "type": "retracted", "persona_id": PERSONA, "domain": DOMAIN}
    assert outcome.was == "pending" and outcome.rebuild is None and texts(home, SECRET) == []
    assert tally.pending(home, PERSONA, DOMAIN).examples == 2
    assert tally.pending(home, PERSONA, DOMAIN).evidence == 0
    assert whole(home) == {"pending": 2, "queued": 0, "archived": 0, "set aside": 0, "superseded": 0, "retracted": 1,
                           "evidence": 0}  # fmt: skip
    batch = trained.batch([])
    assert (batch.signals, batch.evidence) == (2, 0) and whole(home)["queued"] == 2


def test_a_daemon_with_an_open_segment_goes_on(trained: TrainedHome, signal: Make) -> None:
    """Its appender sees that the segment was sealed, and begins another; nothing it is given is lost."""
    home, into = trained.home, Buffer(trained.home, Intake())
    into.load()
    into.accept([from_signal(secret(signal)), from_signal(signal(1))], NOW)
    retract(home)
    into.accept([from_signal(signal(2))], NOW)
    assert len(list(home.pending(PERSONA, DOMAIN).glob("*.jsonl"))) == 2
    assert into.accept([from_signal(secret(signal))], NOW).duplicates == 1
    into.flush()
    assert whole(home)["pending"] == 2 and texts(home, SECRET) == []


def test_the_same_line_dropped_again_stays_retracted(trained: TrainedHome, signal: Make) -> None:
    """Also where the ledger was lost and is made anew from the segments: the tombstone keeps the id."""
    home = trained.home
    trained.accept([signal(1), secret(signal)])
    retract(home)
    files.remove(home.ledger)
    into = Buffer(home, Intake())
    into.load()
    assert into.accept([from_signal(secret(signal))], NOW).duplicates == 1
    assert texts(home, SECRET) == []


def test_a_dropped_line_keeps_its_origin(home: Home, drop: Any, correction: Any) -> None:
    """So a start knows as before where to read its file on, and it is named while it still holds the text."""
    from genome import intake
    from genome.intake import Reading, Scan

    dropped = drop(correction(1), correction(2, id="the-secret", input=SECRET.decode()))
    into = Buffer(home, Intake())
    into.load()
    found = next(intake.drops(home, Scan(NOW, 0)))
    into.commit(list(Reading(found, intake.NOTHING, True, 1 << 20).chunks()), NOW)
    origins = [stored.origin for stored in segments.scan_all(home.pending(PERSONA, DOMAIN).glob("*.jsonl"))]
    outcome = retract(home)
    assert outcome.inbox == (dropped,) and texts(home, SECRET) == []
    left = list(segments.scan_all(home.pending(PERSONA, DOMAIN).glob("*.jsonl")))
    assert [stored.origin for stored in left] == origins and left[1].retracted
    again = Buffer(home, Intake())
    again.load()
    assert again.commit(list(Reading(found, intake.NOTHING, True, 1 << 20).chunks()), NOW).duplicates == 2


def test_files_are_named_by_what_they_hold(home: Home, drop: Any, correction: Any) -> None:
    """Every one with a line of that id, given or the hash of what it says, whatever it is called and wherever it came
    from; none that only has the inode of the first."""
    from genome import intake
    from genome.intake import Reading, Scan

    first = drop(correction(1), correction(2))
    again = home.inbox / "again.jsonl"
    again.write_bytes(first.read_bytes())
    other = home.inbox / "other.jsonl"
    other.write_bytes(json.dumps(correction(3)).encode() + b"\n")
    into = Buffer(home, Intake())
    into.load()
    for found in list(intake.drops(home, Scan(NOW, 0))):
        into.commit(list(Reading(found, intake.NOTHING, True, 1 << 20).chunks()), NOW)
    stored = list(segments.scan_all(home.pending(PERSONA, DOMAIN).glob("*.jsonl")))
    wanted = next(each.signal.id for each in stored if each.signal.input == correction(2)["input"])
    first.write_bytes(json.dumps(correction(1)).encode() + b"\n")  # the same inode and first line
    assert retract(home, wanted).inbox == (again,)


def test_a_refused_line_that_was_taken_after_all_is_blanked(home: Home, drop: Any, correction: Any) -> None:
    """Its text lies in rejected/ in base64; what is left of it is never taken for a line that is refused still."""
    from test_buffer import opened, take

    from genome import rejected
    from genome.retry import retry

    drop(secret(correction, personaId=None), b"nope", correction(1, personaId=None))
    assert take(home, opened(home)).rejected == 3 and texts(home, SECRET)
    retry(home, Intake(default_persona=PERSONA), NOW)
    assert take(home, opened(home)).accepted == 2
    (day,) = rejected.days(home)
    length = day.stat().st_size
    assert {path.parent for path in retract(home).inbox} == {home.inbox, home.inbox / PERSONA / DOMAIN}
    assert texts(home, SECRET) == [] and day.stat().st_size == length
    assert [line.raw_bytes for line in rejected.read(home)] == [b"nope"] and whole(home)["retracted"] == 1
    assert retry(home, Intake(default_persona=PERSONA), NOW).lines == 0


def test_what_lost_against_it_is_named(trained: TrainedHome, signal: Make) -> None:
    """Nothing teaches that question any more, and whoever retracts can drop it again; not where another still does."""
    home = trained.home
    trained.batch([
        signal(1, id="loser", timestamp=1), signal(1, id="winner", correctOutput="b", timestamp=2),
        signal(2, id="beaten", timestamp=1), signal(2, id="one", correctOutput="b", timestamp=2),
        signal(2, id="two", correctOutput="b", context=None, session="s", timestamp=3),
        *(signal(10 + i) for i in range(9)),
    ])  # fmt: skip
    assert retract(home, "winner").superseded == ("loser",)
    assert retract(home, "winner").superseded == ()
    assert retract(home, "one").superseded == ()


def test_an_archived_signal_goes_from_everything(trained: TrainedHome, signal: Make) -> None:
    """Segment, ended job's examples and replay; its versions are marked, and a rebuild is queued without it."""
    home = trained.home
    first = trained.turn([signal(i) for i in range(10)])
    second = trained.turn(trains(signal, trained, 100))
    third = trained.turn([signal(300 + i) for i in range(10)])
    assert len(texts(home, SECRET)) >= 2
    outcome = retract(home)
    assert outcome.was == "archived" and texts(home, SECRET) == []
    assert outcome.marked == (second, third) and outcome.serving == (third,)
    batch = outcome.rebuild
    assert batch is not None and batch.parent == first and len(batch.rebuilds) == 2
    assert sorted(provenance.taints(home)) == [second, third] and retraction.served(home) == {third: ("the-secret",)}
    counts = whole(home)
    assert (counts["archived"], counts["retracted"]) == (29, 1)
    row = status.read_buffer(home)["domains"][0]
    assert (row["archived"], row["retracted"], row["queued"]) == (29, 1, 0)
    for old in batches.archived(home, PERSONA, DOMAIN):
        assert "the-secret" not in {each.id for each in batches.signals(home, old)}
    made = trained.carry_through(batch)
    assert registry.stack_of(home, PERSONA)[0].adapter == made and provenance.tainted(home, made) == ()
    assert retraction.served(home) == {} and whole(home)["archived"] == 29
    assert batch.id not in {old.id for old in batches.archived(home, PERSONA, DOMAIN)}
    taught = curriculum.taught(home, PERSONA, DOMAIN)
    assert len(taught) == len({each.id for each in taught})  # nothing twice


def test_a_compressed_segment_is_packed_again(trained: TrainedHome, signal: Make) -> None:
    """With the tombstone in it, and as readable as before."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    (path,) = home.archive(PERSONA, DOMAIN).glob("*/*.jsonl")
    segments.pack(path)
    segments.shed(path)
    length = sum(map(len, segments.lines(path)))
    assert texts(home, SECRET) and not path.exists()
    retract(home)
    assert texts(home, SECRET) == [] and sum(map(len, segments.lines(path))) == length
    assert whole(home)["retracted"] == 1


def test_what_a_crash_left_beside_the_segment_goes_too(trained: TrainedHome, signal: Make) -> None:
    """The compressed one that was not yet believed, and the half-made one."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    (path,) = home.archive(PERSONA, DOMAIN).glob("*/*.jsonl")
    segments.pack(path)
    (path.parent / f"{files.UNFINISHED}{path.name}.7").write_bytes(SECRET)
    assert len(texts(home, SECRET)) == 4  # with the job's examples
    retract(home)
    assert texts(home, SECRET) == [] and whole(home)["retracted"] == 1


def test_what_is_being_compressed_meanwhile_goes_too(
    trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pruner that packed the segment as it was finds another file in its place, and throws its own away."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    real = segments.pack

    def packs_late(path: Path) -> None:
        kept = path.read_bytes()
        retract(home)
        now = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(kept)
        real(path)
        path.write_bytes(now)
        path.chmod(0o400)

    monkeypatch.setattr(segments, "pack", packs_late)
    pruning.carry_out(home, Prune(compress_archive_days=0), NOW + EVERYTHING)
    assert texts(home, SECRET) == [] and whole(home)["retracted"] == 1


@pytest.mark.parametrize("state", ["superseded", "evidence", "set aside", "queued", "held out"])
def test_every_state_can_be_retracted(trained: TrainedHome, signal: Make, state: str) -> None:
    """And is counted as retracted from then on, in fsck and in the status alike."""
    home = trained.home
    lines = [signal(100 + i) for i in range(9)]
    if state == "superseded":
        trained.batch([secret(signal, timestamp=1), secret(signal, id="later", correctOutput="b"), *lines])
    elif state == "evidence":
        trained.batch([secret(signal, type="mistake", correctOutput=None), *lines])
    elif state == "set aside":
        trained.turn([secret(signal), *lines], promote=False)
    elif state == "held out":
        number = next(number for number in range(1000) if "the-secret" in batches.hold_out(
            [from_signal(line) for line in (secret(signal, number), *lines)], trained_home.POLICY))  # fmt: skip
        made = trained.turn([secret(signal, number), *lines])
    else:
        trained.batch([secret(signal), *lines])
    before = whole(home)
    outcome = retract(home)
    after = whole(home)
    assert outcome.was == ("archived" if state == "held out" else state)
    assert after["retracted"] == 1 and sum(after.values()) == sum(before.values())
    row = status.read_buffer(home)["domains"][0]
    assert row["retracted"] == 1
    for name in ("pending", "queued", "archived", "set_aside", "superseded"):
        assert row[name] == after[name.replace("_", " ")]
    if state == "held out":
        assert provenance.tainted(home, made) == () and outcome.rebuild is None


def test_a_waiting_job_is_withdrawn_and_its_batch_ordered_again(trained: TrainedHome, signal: Make) -> None:
    """Without the signal and under another id; the first ends as failed, and says why."""
    home = trained.home
    batch = trained.batch(trains(signal, trained, 0))
    first = trained.order(batch)
    outcome = retract(home)
    assert outcome.withdrawn == (first.id,) and texts(home, SECRET) == []
    ended = jobs.find(home, first.id)
    assert ended.state() == "failed" and (ended.result() or Result()).reason == retraction.WITHDRAWN
    assert [waiting.id for waiting in planner.unordered(home)] == [batch.id]
    again = trained.order(batch)
    assert again.id == f"{first.id}.2"
    assert "the-secret" not in {example.id for example in jobs.read_examples(again.examples)}
    made = trained.train(again)
    trained.judge(again)
    assert provenance.tainted(home, made) == () and whole(home)["retracted"] == 1
    assert trained.batch([signal(900 + i) for i in range(10)]).id != batch.id


def test_a_batch_with_nothing_left_to_teach_is_set_aside(trained: TrainedHome, signal: Make) -> None:
    """It would be trained on anchors alone."""
    home = trained.home
    batch = trained.batch([secret(signal)])
    trained.order(batch)
    retract(home)
    assert batches.queued(home, PERSONA, DOMAIN) == [] and planner.unordered(home) == []
    assert (
        whole(home)["retracted"] == 1
        and "retracted" in (home.set_aside(PERSONA, DOMAIN) / batch.id / "reason.txt").read_text()
    )


def test_a_job_that_replays_it_is_withdrawn(trained: TrainedHome, signal: Make) -> None:
    """Though the signal is of an earlier batch."""
    home = trained.home
    trained.turn([secret(signal), signal(1), signal(2)])
    later = trained.batch([signal(100 + i) for i in range(20)])
    config = trained_home.CONFIG.model_copy(
        update={"training": trained_home.CONFIG.training.model_copy(update={"replay_fraction": 1.0})}
    )
    job = orders.order(home, config, later, Path("base"), "f" * 64)
    assert texts(home, SECRET)
    assert retract(home).withdrawn == (job.id,) and texts(home, SECRET) == []


def test_an_anchor_of_its_own_domain_goes_alone(
    trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a job that is held to what serves there; what else was taught stays its anchors."""
    home, training = trained.home, trained_home.CONFIG.training
    anchored = training.model_copy(update={"anchor_weight": 5.0, "replay_fraction": 0.0})
    monkeypatch.setattr(trained_home, "CONFIG", trained_home.CONFIG.model_copy(update={"training": anchored}))
    trained.turn([signal(i, id=f"s {i}", input=f"{SECRET.decode()} {i}?") for i in range(10)])
    directory = trained.order(trained.batch([signal(100 + i) for i in range(10)]))
    lost, *others = [each.id for each in jobs.read_examples(directory.examples) if each.anchor]
    text = f"{SECRET.decode()} {lost.removeprefix('s ')}?".encode()
    assert directory.examples in texts(home, text) and others
    retract(home, lost)
    left = jobs.read_examples(jobs.find(home, directory.id).examples)
    assert texts(home, text) == [] and [each.id for each in left if each.anchor] == others


def test_a_candidate_that_waits_is_withdrawn(trained: TrainedHome, signal: Make) -> None:
    """With the daemon down; under a running one the gate asks before it promotes."""
    home = trained.home
    directory = trained.order(trained.batch(trains(signal, trained, 0)))
    made = trained.train(directory)
    with files.locked(home.daemon_lock):
        assert retract(home).withdrawn == ()
        assert retraction.unwanted(home, directory, ()).startswith(retraction.WITHDRAWN)
    assert provenance.newly_tainted(home, made, ()) == ("the-secret",)
    with files.locked(home.lock):
        retraction.withdraw(home, directory)
    assert jobs.find(home, directory.id).state() == "failed" and len(planner.unordered(home)) == 1


def test_beside_a_daemon_a_running_job_is_left_to_the_runner(trained: TrainedHome, signal: Make) -> None:
    """It is held, so that its trainer is stopped, and already failed, so that nobody starts it again."""
    home = trained.home
    directory = trained.order(trained.batch(trains(signal, trained, 0)))
    directory.record(Event(event="started"))
    with files.locked(home.daemon_lock):
        assert retract(home).withdrawn == (directory.id,)
        assert directory.held.exists() and directory.state() == "failed" and texts(home, SECRET) == []


def test_an_ancestor_that_was_pruned_still_taints(trained: TrainedHome, signal: Make) -> None:
    """Its manifest outlives its weights; a rebuild goes on from no version that is not there."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    for first in (1000, 2000, 3000):
        last = trained.turn([signal(first + i) for i in range(10)])
    done = pruning.carry_out(home, Prune(adapters_kept=1, rollback_days=0, completed_jobs_days=0), NOW + EVERYTHING * 9)
    assert home.adapter("helper/git-v1.0") in {act.path for act in done}
    outcome = retract(home)
    assert "helper/git-v1.0" in outcome.marked and last in outcome.serving
    assert outcome.rebuild is not None and outcome.rebuild.parent is None and len(outcome.rebuild.rebuilds) == 4
    assert whole(home)["retracted"] == 1


@pytest.mark.parametrize("torn", [False, True])
def test_wherever_it_stops_it_is_ended_once(
    tmp_path: Path, trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    """Killed before any act on the disk: before the record nothing happened; after it, the next start ends it."""
    import shutil

    trained.turn([signal(i) for i in range(10)])
    trained.turn(trains(signal, trained, 100))
    trained.order(trained.batch([signal(3000 + i) for i in range(10)]))
    kept, reached, act = tmp_path / "kept", set(), 0
    shutil.copytree(trained.home.root, kept)
    while True:
        shutil.rmtree(trained.home.root)
        shutil.copytree(kept, trained.home.root)
        home, left = trained.home, [act]
        with monkeypatch.context() as patched:
            for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "write"):
                patched.setattr(files.os, name, _dies(getattr(os, name), left, torn and name == "write"))
            try:
                retract(home)
                ended = True
            except KeyboardInterrupt:
                ended = False
        begun = bool(tombstones.all_of(home, PERSONA, DOMAIN))
        reached.add(begun)
        if begun:
            supervisor.recover(home)
        else:
            supervisor.recover(home)
            assert whole(home)["retracted"] == 0
            retract(home)
        assert texts(home, SECRET) == [] and whole(home)["retracted"] == 1
        assert tombstones.unfinished(home, PERSONA, DOMAIN) == []
        assert len(rebuilding.standing(home, PERSONA, DOMAIN)) == 1
        (done,) = tombstones.all_of(home, PERSONA, DOMAIN)
        assert done.reason == "by mistake" and done.batch is not None
        assert retract(home).retraction == done and whole(home)["retracted"] == 1
        if ended:
            break
        act += 1
    assert reached == {False, True} and act > 20


def _dies(real: Callable[..., Any], left: list[int], torn: bool) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            if torn and left[0] == -1:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise KeyboardInterrupt
        return real(*arguments, **named)

    return call


def test_text_that_came_back_is_told(trained: TrainedHome, signal: Make) -> None:
    """A segment brought back from a copy of the home holds it again; retracting once more ends that."""
    home = trained.home
    trained.accept([secret(signal), signal(1)])
    (path,) = home.pending(PERSONA, DOMAIN).glob("*.jsonl")
    data = path.read_bytes()
    retract(home)
    path.chmod(0o600)
    path.write_bytes(data)
    assert any("was retracted, and it is there" in problem.what for problem in fsck.check(home).problems)
    retract(home)
    assert texts(home, SECRET) == [] and whole(home)["retracted"] == 1


def test_a_retraction_while_a_batch_is_formed_is_not_overlooked(
    trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before it is not what lies there now: no batch counts a signal that is gone."""
    home = trained.home
    trained.accept([secret(signal), *(signal(10 + i) for i in range(9))])
    real = batches.hold_out

    def retracts(*arguments: Any) -> Any:
        if not tombstones.all_of(home, PERSONA, DOMAIN) and calls.pop():
            retract(home)
        return real(*arguments)

    calls = [True, False]
    monkeypatch.setattr(batches, "hold_out", retracts)
    assert batches.form(home, PERSONA, DOMAIN, "test", NOW, HeldOutPolicy(0.3, 150)) is None
    batch = batches.form(home, PERSONA, DOMAIN, "test", NOW, HeldOutPolicy(0.3, 150))
    assert batch is not None and batch.signals == 9 and whole(home)["queued"] == 9


def test_a_retraction_while_a_job_is_written_is_not_overlooked(
    trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its examples were gathered before; it is withdrawn at once."""
    home = trained.home
    batch = trained.batch(trains(signal, trained, 0))
    real = curriculum.replay_part

    def retracts(*arguments: Any) -> Any:
        retract(home)
        return real(*arguments)

    monkeypatch.setattr(curriculum, "replay_part", retracts)
    directory = trained.order(batch)
    assert directory.state() == "failed" and texts(home, SECRET) == []
    assert [waiting.id for waiting in planner.unordered(home)] == [batch.id]


def test_a_reason_is_wanted(trained: TrainedHome, signal: Make) -> None:
    """Whoever looks later is told why."""
    trained.accept([signal(1, id="abc")])
    with pytest.raises(InvalidInput, match="why"):
        retraction.retract(trained.home, "abc", " ", NOW)


@given(
    line=st.builds(
        Line, id=st.text(min_size=1, max_size=20), type=st.sampled_from(["import", "mistake"]),
        persona_id=st.just("p"), domain=st.just("d"), input=st.text(min_size=1, max_size=3),
        source=st.sampled_from(["ai", "human"]), timestamp=st.integers(0, 10), weight=st.floats(0, 1000),
    ),
    origin=st.none() | st.builds(
        Origin, file=st.text(max_size=5), name=st.text(max_size=5), offset=st.integers(0), chunk=st.integers(0)),
)  # fmt: skip
def test_a_tombstone_fits_in_every_line(line: Line, origin: Origin | None) -> None:
    """However short what it said was, and whatever its id is."""
    raw = segments.encode([Stored(line, 1, origin)])
    left = tombstones.tombstone(raw, segments.decode(raw))
    assert len(left) == len(raw) and left.endswith(b"\n") and left.count(b"\n") == 1
    again = segments.decode(left)
    assert again.retracted and again.signal.id == line.id and again.origin == origin and not again.signal.teaches


def test_a_job_held_by_hand_only_loses_the_line(trained: TrainedHome, signal: Make) -> None:
    """Nothing was learned yet, and whoever held it wants to start it himself."""
    home = trained.home
    directory = trained.order(trained.batch(trains(signal, trained, 0)))
    jobs.hold(home, directory.id)
    before = len(jobs.read_examples(directory.examples))
    assert retract(home).withdrawn == () and directory.state() == "held"
    assert len(jobs.read_examples(directory.examples)) == before - 1 and texts(home, SECRET) == []


def test_a_retraction_that_was_interrupted_is_ended_by_who_orders(trained: TrainedHome, signal: Make) -> None:
    """Beside a running daemon nobody else does for a day, and each job of the domain would be withdrawn again."""
    home = trained.home
    batch = trained.batch(trains(signal, trained, 0))
    tombstones.put(home, tombstones.Retraction(signal="the-secret", persona=PERSONA, domain=DOMAIN, reason="test",
                                               created=0))  # fmt: skip
    with files.locked(home.daemon_lock):
        first = trained.order(batch)
        assert first.state() == "failed" and texts(home, SECRET) == []
        assert tombstones.unfinished(home, PERSONA, DOMAIN) == []
        with files.locked(home.lock):
            retraction.end_withdrawn(home, first)
        again = trained.order(batch)
    assert again.state() == "waiting" and again.id != first.id and whole(home)["retracted"] == 1


def test_a_candidate_that_was_promoted_stays_so(trained: TrainedHome, signal: Make) -> None:
    """Where the gate was killed before it put job and batch away, that is done first, and the batch is rebuilt."""
    home = trained.home
    directory = trained.order(trained.batch(trains(signal, trained, 0)))
    made, taught = trained.train(directory), directory.job().batch
    registry.promote(home, made, NOW, "better", directory.id)
    assert retraction.unwanted(home, directory, registry.stack_of(home, PERSONA)) == ""
    outcome = retract(home)
    assert outcome.withdrawn == () and outcome.serving == (made,)
    assert outcome.rebuild is not None and outcome.rebuild.rebuilds == (taught,)
    assert [batch.id for batch in batches.archived(home, PERSONA, DOMAIN)] == [taught]


def test_what_the_gate_finds_unwanted_is_ordered_again(trained: TrainedHome, signal: Make) -> None:
    """A candidate that brought a retracted signal ends as failed, whatever its verdict would have been."""
    home = trained.home
    directory = trained.order(trained.batch(trains(signal, trained, 0)))
    trained.train(directory)
    with files.locked(home.daemon_lock):
        retract(home)
        with files.locked(home.lock):
            reason = retraction.unwanted(home, directory, ())
            retraction.dismiss(home, directory, reason, NOW)
        assert "the-secret" in reason and jobs.find(home, directory.id).state() == "failed"
        (batch,) = planner.unordered(home)
        again = trained.order(batch)
        trained.train(again)
        assert retraction.unwanted(home, again, ()) == ""


def test_a_damaged_file_keeps_no_daemon_from_starting(trained: TrainedHome, signal: Make) -> None:
    """An interrupted retraction that cannot be ended waits, and fsck says so; whole again, it is ended."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    (path,) = home.archive(PERSONA, DOMAIN).glob("*/*.jsonl")
    segments.pack(path)
    segments.shed(path)
    kept = segments.packed(path).read_bytes()
    retract(home)
    files.move(home.retracted(PERSONA, DOMAIN), home.retracting(PERSONA, DOMAIN))
    segments.packed(path).write_bytes(kept[: len(kept) // 2])
    supervisor.recover(home)
    report = fsck.check(home)
    assert report.problems and any("interrupted" in note for note in report.notes)
    segments.packed(path).write_bytes(kept)
    supervisor.recover(home)
    assert texts(home, SECRET) == [] and whole(home)["retracted"] == 1
    assert tombstones.unfinished(home, PERSONA, DOMAIN) == []

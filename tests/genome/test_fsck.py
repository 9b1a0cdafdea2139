"""Promise 1, proved by counting: fsck names every kind of damage, and mends what is safe to mend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import whole_home

from genome import checks, files, fsck, ledger
from genome.buffer import Buffer
from genome.checks import problems
from genome.config import Intake
from genome.errors import Busy, Damaged, NotFound
from genome.layout import Home

Break = Callable[[Home], object]


@pytest.fixture
def whole(home: Home, signal: Any, drop: Any, monkeypatch: pytest.MonkeyPatch) -> Home:
    return whole_home.make(home, signal, drop, monkeypatch)


def one(home: Home, pattern: str) -> Path:
    """The first that fits, below the home."""
    return sorted(home.root.glob(pattern))[0]


def edit(home: Home, pattern: str, change: Callable[[bytes], bytes]) -> None:
    path = one(home, pattern)
    path.chmod(0o600)
    path.write_bytes(change(path.read_bytes()))


def record(home: Home, pattern: str, **fields: Any) -> None:
    edit(home, pattern, lambda data: json.dumps({**json.loads(data), **fields}).encode())


def lines(keep: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(keep(data.splitlines(keepends=True)))


def copy(home: Home, source: str, target: str) -> None:
    path = home.root / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(one(home, source).read_bytes())


BUFFER = "training-buffer/helper/git"
ARCHIVED, SET_ASIDE, PENDING = f"{BUFFER}/archive/*", f"{BUFFER}/set-aside/*", f"{BUFFER}/pending"
NEWEST_PENDING = f"{PENDING}/2025-11-24-*.jsonl"


def covered(home: Home) -> str:
    """The segment the ledger's marks end in."""
    return f"{BUFFER}/**/{ledger.read(home)[0].domains['helper/git'].segment}"


DAMAGE: dict[str, tuple[Break, str]] = {
    "a line of a segment": (lambda h: edit(h, f"{ARCHIVED}/*.jsonl", lambda d: b"x" + d), "cannot be read"),
    "a blank line": (lambda h: edit(h, NEWEST_PENDING, lambda d: b"\n" + d), "cannot be read"),
    "a line training cannot read": (
        lambda h: edit(h, NEWEST_PENDING, lambda d: d.replace(b'"human"', b'"nobody"')), "cannot be read"),
    "a signal of another domain": (
        lambda h: edit(h, NEWEST_PENDING, lambda d: d.replace(b'"domain":"git"', b'"domain":"soup"')),
        "is a signal of helper/soup"),
    "a lost line": (lambda h: edit(h, f"{ARCHIVED}/*.jsonl", lines(lambda found: found[1:])), "that no segment holds"),
    "a lost segment": (lambda h: one(h, f"{ARCHIVED}/*.jsonl").unlink(), "is missing"),
    "a lost pending segment": (lambda h: one(h, f"{PENDING}/2025-11-23*.jsonl").unlink(), "is missing"),
    "a line twice": (lambda h: edit(h, NEWEST_PENDING, lines(lambda found: [*found, found[0]])), "lie twice"),
    "a signal in two places": (
        lambda h: edit(h, NEWEST_PENDING, lambda d: d + one(h, f"{ARCHIVED}/*.jsonl").read_bytes()), "also in"),
    "a segment in two places": (
        lambda h: copy(h, f"{ARCHIVED}/2025-11-20-001.jsonl", f"{PENDING}/2025-11-20-001.jsonl"), "lies beside"),
    "the end of what the ledger covers": (
        lambda h: edit(h, covered(h), lambda d: d[:-1]), "the ledger has it up to byte"),
    "a segment's name": (lambda h: copy(h, NEWEST_PENDING, f"{PENDING}/more.jsonl"), "no segment's name"),
    "a segment of no batch": (
        lambda h: one(h, f"{PENDING}/2025-11-24-*.jsonl").rename(one(h, ARCHIVED) / "2025-11-24-001.jsonl"),
        "named by no batch"),
    "a batch's record": (lambda h: edit(h, f"{ARCHIVED}/batch.json", lambda d: d[1:]), "cannot be read as batch"),
    "a batch without record": (lambda h: one(h, f"{SET_ASIDE}/batch.json").unlink(), "without batch.json"),
    "a batch under another name": (
        lambda h: one(h, SET_ASIDE).rename(h.set_aside("helper", "git") / "batch-2025-11-29-001"), "is the record of"),
    "a batch's digest": (lambda h: record(h, f"{ARCHIVED}/batch.json", digest="0"), "its digest"),
    "a batch's counts": (lambda h: record(h, f"{ARCHIVED}/batch.json", signals=7), "counts 7 signals"),
    "a held-out signal": (lambda h: record(h, f"{ARCHIVED}/batch.json", held_out=["x"]), "held_out names 'x'"),
    "a superseded signal": (
        lambda h: record(h, f"{ARCHIVED}/batch.json", superseded=["x"], signals=11), "superseded names 'x'"),
    "a segment of two batches": (
        lambda h: record(h, f"{BUFFER}/queued/*/batch.json", segments=["2025-11-20-001.jsonl"]), "names too"),
    "a job without record": (lambda h: one(h, "training-jobs/active/*/job.json").unlink(), "without job.json"),
    "a job's record": (lambda h: edit(h, "training-jobs/completed/*/job.json", lambda d: b""), "cannot be read as job"),
    "a job's result": (lambda h: edit(h, "training-jobs/completed/*/result.json", lambda d: b"{"), "read as result"),
    "a job's verdict": (lambda h: edit(h, "training-jobs/completed/*/verdict.json", lambda d: b"{"), "read as verdict"),
    "a job's events": (lambda h: edit(h, "training-jobs/completed/*/events.jsonl", lambda d: b"x" + d), "is no event"),
    "what a job trains on": (lambda h: one(h, "training-jobs/active/*/train.jsonl").unlink(), "is missing"),
    "a job's batch": (lambda h: record(h, "training-jobs/active/*/job.json", batch="batch-x"), "does not exist"),
    "a job whose batch ended": (
        lambda h: record(h, "training-jobs/active/*/job.json", batch=one(h, ARCHIVED).name), "which has ended"),
    "a job's parent": (
        lambda h: record(h, "training-jobs/active/*/job.json", parent="helper/git-v7.0"), "goes on from"),
    "what a job trains beside": (
        lambda h: record(h, "training-jobs/active/*/job.json", beside=[{"adapter": "helper/soup-v7.0", "path": "x"}]),
        "trains beside helper/soup-v7.0, which is not there"),
    "a job in two places": (
        lambda h: copy(h, "training-jobs/active/*/job.json",
                       f"training-jobs/completed/{one(h, 'training-jobs/active/*').name}/job.json"), "there twice"),
    "an active job's candidate": (
        lambda h: (one(h, "training-jobs/active/*") / "result.json").write_text('{"adapter": "helper/git-v8.0"}'),
        "which is not there"),
    "the number of a removed adapter": (
        lambda h: record(h, "training-jobs/completed/*/result.json", adapter="helper/git-v8.0"), "is given again"),
    "an adapter without manifest": (lambda h: one(h, "adapters/helper/git-*/manifest.json").unlink(), "manifest.json"),
    "an adapter's manifest": (
        lambda h: edit(h, "adapters/helper/git-*/manifest.json", lambda d: b"{}"), "read as manifest"),
    "an adapter under another name": (
        lambda h: one(h, "adapters/helper/git-v1.1").rename(h.adapter("helper/git-v1.5")), "is the manifest of"),
    "a directory that is no adapter": (lambda h: (h.adapters / "helper" / "x").mkdir(), "no adapter's name"),
    "an adapter's weights": (
        lambda h: edit(h, "adapters/helper/git-v1.1/*.safetensors", lambda d: d[:-1] + b"x"), "its sha256"),
    "what a version was worth": (
        lambda h: edit(h, "adapters/helper/scores/*.json", lambda d: b"{}"), "read as scores"),
    "an adapter's config": (lambda h: one(h, "adapters/helper/git-v1.1/adapter_config.json").unlink(), "is missing"),
    "a gap in the promotions": (
        lambda h: one(h, "adapters/helper/promotions/000001.json").unlink(), "no 000001.json"),
    "a promotion": (lambda h: edit(h, "adapters/helper/promotions/*", lambda d: b""), "read as promotion"),
    "a promotion's number": (lambda h: record(h, "adapters/helper/promotions/*", number=7), "is promotion 7"),
    "what a promotion builds on": (lambda h: record(h, "adapters/helper/promotions/000002*", builds_on=9), "builds on"),
    "what is served": (
        lambda h: files.remove(h.adapter("helper/git-v1.2")), "is to be served, and helper/git-v1.2 is not there"),
    "what a rollback returns to": (lambda h: files.remove(h.adapter("helper/git-v1.0")), "a rollback returns to"),
    "what was promoted": (
        lambda h: record(h, "adapters/helper/promotions/000002*",
                         stack=[{"adapter": "helper/git-v1.2", "digest": "0"}]),
        "another one than was promoted"),
    "a record moved aside": (lambda h: (h.jobs / "job.json.unreadable-7").write_text(""), "was moved aside"),
    "the open alerts": (lambda h: (h.alerts.mkdir(), h.open_alerts.write_text("{")), "read as openalerts"),
    "a refused line": (lambda h: edit(h, "training-buffer/rejected/2*.jsonl", lambda d: b"x" + d), "cannot be read"),
}  # fmt: skip

FAILED = '{"schema": 1, "reason": "no memory"}'
REPAIRABLE: dict[str, tuple[Break, str]] = {
    "a half-made directory": (lambda h: (h.adapters / "helper" / ".unfinished-git-v1.3").mkdir(), "half-made"),
    "a half-made file": (lambda h: (h.jobs / ".unfinished-paused.7").write_text(""), "half-made"),
    "a torn line": (lambda h: edit(h, NEWEST_PENDING, lambda d: d + b'{"signal'), "torn"),
    "a torn refused line": (lambda h: edit(h, "training-buffer/rejected/2*", lambda d: d + b'{"rea'), "torn"),
    "a segment left behind": (
        lambda h: one(h, f"{ARCHIVED}/2025-11-20-001.jsonl").rename(
            h.pending("helper", "git") / "2025-11-20-001.jsonl"), "left behind"),
    "a damaged ledger": (lambda h: edit(h, "training-buffer/ledger/*.ids", lambda d: d[1:]), "is damaged"),
    "a ledger without marks": (lambda h: (h.ledger / "marks.json").unlink(), "marks.json"),
    "a ledger without a run": (lambda h: one(h, "training-buffer/ledger/*.ids").unlink(), "is missing"),
    "a ledger that is behind": (lambda h: shrink_ledger(h), "lacks 2 signals"),
    "a merged run": (lambda h: copy(h, "training-buffer/ledger/*.ids", "training-buffer/ledger/00000001-00000001.ids"),
                     "merged"),
    "checkpoints of no job": (lambda h: h.checkpoints("job-2025-11-01-001").mkdir(parents=True), "of no job"),
    "checkpoints of an ended job": (
        lambda h: h.checkpoints(one(h, "training-jobs/completed/*").name).mkdir(parents=True), "adapter is in place"),
    "a failed job among the active": (
        lambda h: (one(h, "training-jobs/active/*") / "result.json").write_text(FAILED), "failed, and still"),
}  # fmt: skip


def shrink_ledger(home: Home) -> None:
    """The same run without two of its ids."""
    path = one(home, "training-buffer/ledger/*.ids")
    run = ledger._open_run(path)
    data = run.high[2:].tobytes() + run.low[2:].tobytes()
    path.write_bytes(data + ledger.xxhash.xxh3_64_digest(data))


def test_a_home_that_lived_is_whole(whole: Home) -> None:
    """No problem is found, every accepted signal is counted once, and nothing is changed by looking."""
    before = {path: path.stat().st_mtime_ns for path in whole.root.rglob("*") if "run" not in path.parts}
    report = fsck.check(whole)
    assert [problem.what for problem in report.problems] == []
    assert report.counts == whole_home.COUNTS
    assert report.counts["accepted"] == sum(report.counts.values()) - report.counts["accepted"] - 2
    assert {path: path.stat().st_mtime_ns for path in whole.root.rglob("*") if "run" not in path.parts} == before


def test_the_home_has_what_is_broken_below(whole: Home) -> None:
    """A ledger with one run at least, so that what is lost can be known."""
    assert list(whole.ledger.glob("*.ids"))


@pytest.mark.parametrize(("harm", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_left_alone(whole: Home, harm: Break, words: str) -> None:
    """Path, what and what to do; a repair does not touch what takes a person to judge."""
    harm(whole)
    report = fsck.check(whole)
    assert words in "\n".join(problem.what for problem in report.problems)
    assert all(problem.advice and problem.path.is_relative_to(whole.root) for problem in report.problems)
    assert words in "\n".join(problem.what for problem in fsck.check(whole, repair=True).problems)


@pytest.mark.parametrize(("harm", "words"), REPAIRABLE.values(), ids=REPAIRABLE)
def test_what_is_safe_to_mend_is_mended(whole: Home, harm: Break, words: str) -> None:
    """Found, mended on request, then gone; no signal with it."""
    harm(whole)
    found = fsck.check(whole)
    assert words in "\n".join(problem.what for problem in found.problems)
    assert all(problem.repairable for problem in found.problems)
    mended = fsck.check(whole, repair=True)
    assert mended.problems == () and len(mended.repaired) >= 1
    assert fsck.check(whole).problems == () and mended.counts == whole_home.COUNTS


def test_no_repair_beside_a_daemon(whole: Home) -> None:
    """It is refused with the daemon's name; reading goes on, and what may be in the making is no problem."""
    (whole.jobs / ".unfinished-job").mkdir()
    with files.locked(whole.daemon_lock, "the daemon with process id 7"):
        with pytest.raises(Busy, match="process id 7"):
            fsck.check(whole, repair=True)
        assert fsck.check(whole).problems == ()
    assert len(fsck.check(whole).problems) == 1


def test_a_daemon_at_work_is_no_damage(whole: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It merges the ledger's runs while they are read, and ends a job while that is looked at."""
    real, missed = ledger.read, [Damaged("run 1 of the ledger is missing"), FileNotFoundError()]

    def read(home: Home) -> Any:
        if missed:
            raise missed.pop()
        return real(home)

    def parsed(kind: type[Any], path: Path) -> Any:
        if path.parent.parent == whole.active_jobs:
            path.parent.rename(whole.completed_jobs / path.parent.name)
        return problems.parsed(kind, path)

    monkeypatch.setattr(ledger, "read", read)
    monkeypatch.setattr(checks.jobs, "parsed", parsed)
    with files.locked(whole.daemon_lock):
        assert fsck.check(whole).problems == ()
    assert not missed and not list(whole.active_jobs.iterdir())


def test_what_is_lost_is_counted(whole: Home) -> None:
    """What was accepted is known by the ledger, so it is not what was found that is called that."""
    edit(whole, f"{ARCHIVED}/*.jsonl", lines(lambda found: found[1:]))
    report = fsck.check(whole)
    assert report.counts["accepted"] == whole_home.COUNTS["accepted"]
    assert "54 signals accepted ≠ 53 found" in "\n".join(fsck.lines(report))


def test_a_quick_look_leaves_out_digests(whole: Home) -> None:
    """And nothing else that is cheap."""
    edit(whole, "adapters/helper/git-v1.1/*.safetensors", lambda data: data[:-1] + b"x")
    assert fsck.check(whole, quick=True).problems == ()


def test_what_is_lost_is_not_forgotten_by_a_repair(whole: Home) -> None:
    """The ledger is all that knows of lost signals, so it stays as it is."""
    edit(whole, f"{ARCHIVED}/*.jsonl", lines(lambda found: found[1:]))
    shrink_ledger(whole)
    fsck.check(whole, repair=True)
    assert "no segment holds" in "\n".join(problem.what for problem in fsck.check(whole).problems)


def test_no_home_is_not_made_by_looking(tmp_path: Path) -> None:
    """A wrong --home is said to be one."""
    with pytest.raises(NotFound, match="no home"):
        fsck.check(Home(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_signal_that_vanished_from_what_waits_is_missed(whole: Home) -> None:
    """A clean stop writes the ledger: from then on it bears witness for every signal, also for those no batch has."""
    into = Buffer(whole, Intake())
    into.load()
    into.flush()
    segment = next(whole.pending("helper", "git").glob("*.jsonl"))
    segment.chmod(0o600)
    segment.write_bytes(segment.read_bytes().split(b"\n", 1)[1])
    found = fsck.check(whole)
    assert any("1 signals that no segment holds" in problem.what for problem in found.problems)

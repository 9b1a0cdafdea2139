"""What may go goes, and what may be needed stays: signals, what a rollback or a job needs, the newest of a domain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import whole_home
from fixed import NOW
from stopping import Killed, Stopping
from test_buffer import opened
from whole_home import DAY

from genome import adapters, batches, files, fsck, jobs, pruning, registry, segments
from genome.adapters import AdapterId
from genome.config import Prune
from genome.errors import Conflict, Damaged
from genome.jobs import Result
from genome.layout import Home
from genome.promotions import Kind, Promotion, StackEntry
from genome.pruning import Act, EndedJob, Facts
from genome.quality import Verdict
from genome.training import Beside

LATER = NOW + 1000 * DAY
TIGHT = Prune(adapters_kept=1, rollback_days=0)
COMPRESS = Prune(
    compress_archive_days=0, adapters_kept=100, completed_jobs_days=1e6, job_examples_days=1e6, checkpoints_days=1e6
)
"""Only segments."""


@pytest.fixture
def whole(home: Home, signal: Any, drop: Any, monkeypatch: pytest.MonkeyPatch) -> Home:
    return whole_home.make(home, signal, drop, monkeypatch)


def promotion(number: int, days_ago: float, *names: str, builds_on: int = 0, kind: Kind = "promote") -> Promotion:
    return Promotion(
        number=number, persona="helper", kind=kind, stack=tuple(StackEntry(adapter=name, digest="") for name in names),
        builds_on=builds_on, reason="", created=int((NOW - days_ago * DAY) * 1000),
    )  # fmt: skip


def versions(count: int, days_ago: float = 400) -> tuple[tuple[AdapterId, Path, float], ...]:
    """helper/git-v1.0 and on."""
    made = [AdapterId("helper", "git", 1, minor) for minor in range(count)]
    return tuple((each, Path(str(each)), NOW - days_ago * DAY) for each in made)


def gone(facts: Facts, policy: Prune = TIGHT) -> set[str]:
    return {str(act.path) for act in pruning.decide(facts, policy, NOW)}


def test_what_a_canarys_others_get_stays() -> None:
    """It serves, though the newest record does not name it; so does where a rollback leads that passes one over."""
    canary = promotion(3, 50, "helper/git-v1.2", builds_on=2, kind="canary").model_copy(update={"share": 0.1})
    history = (promotion(1, 200, "helper/git-v1.0"), promotion(2, 100, "helper/git-v1.1", builds_on=1), canary)
    facts = Facts(adapters=versions(5), promotions=(history,))
    assert gone(facts) == {"helper/git-v1.0", "helper/git-v1.3"}
    withdrawn = promotion(2, 100, "helper/git-v1.1", builds_on=1).model_copy(
        update={"quarantined": ("helper/git-v1.1",)}
    )
    after = (history[0], withdrawn, promotion(3, 50, "helper/git-v1.2", builds_on=2))
    assert gone(Facts(adapters=versions(5), promotions=(after,))) == {"helper/git-v1.1", "helper/git-v1.3"}


def test_the_newest_versions_stay() -> None:
    """As many as the setting says; of each domain by itself, and ten comes after nine."""
    facts = Facts(adapters=(*versions(12), (AdapterId("helper", "soup", 1, 0), Path("soup"), 0.0)))
    assert gone(facts, Prune()) == {"helper/git-v1.0", "helper/git-v1.1"}
    assert gone(facts) == {f"helper/git-v1.{minor}" for minor in range(11)}


def test_what_was_served_lately_stays() -> None:
    """Also what was promoted long ago, and served until lately; and what was made lately, served or not."""
    history = (
        promotion(1, 200, "helper/git-v1.0"),
        promotion(2, 100, "helper/git-v1.1", builds_on=1),
        promotion(3, 20, "helper/git-v1.2", builds_on=2),
        promotion(4, 10, "helper/git-v1.3", builds_on=3),
    )
    facts = Facts(adapters=versions(8), promotions=(history,))
    policy = Prune(adapters_kept=1, rollback_days=30)
    assert gone(facts, policy) == {"helper/git-v1.0", "helper/git-v1.4", "helper/git-v1.5", "helper/git-v1.6"}
    assert gone(Facts(adapters=versions(8, days_ago=29)), policy) == set()


def test_what_is_served_and_what_a_rollback_returns_to_stay() -> None:
    """However old both are."""
    history = (
        promotion(1, 500, "helper/git-v1.0"),
        promotion(2, 400, "helper/git-v1.1", builds_on=1),
        promotion(3, 300, "helper/git-v1.2", builds_on=2),
    )
    assert gone(Facts(adapters=versions(6), promotions=(history,))) == {
        "helper/git-v1.0", "helper/git-v1.3", "helper/git-v1.4"}  # fmt: skip


def test_what_a_job_needs_stays() -> None:
    """Its parent, and the candidate it made."""
    assert gone(Facts(adapters=versions(4), needed=frozenset({"helper/git-v1.1"}))) == {
        "helper/git-v1.0", "helper/git-v1.2"}  # fmt: skip


def test_what_a_job_trains_beside_is_needed(whole: Home) -> None:
    """It is read when the trainer starts, which may be long after what serves has changed."""
    (directory,) = jobs.active(whole)
    beside = (Beside(adapter="helper/soup-v1.0", path="x"),)
    directory.job().model_copy(update={"beside": beside}).write(directory.path / "job.json")
    assert "helper/soup-v1.0" in pruning.look(whole).needed


def test_jobs_go_after_a_while_but_not_those_that_may_be_tried_again() -> None:
    """One whose batch waits would be ordered again by itself, whether it failed or was refused; its examples and a
    failed one's checkpoints stay for that."""

    def ended(name: str, state: Any, days: float, waits: bool = False) -> EndedJob:
        return EndedJob(Path(name), state, NOW - days * DAY, waits, examples=True)

    facts = Facts(
        jobs=(ended("old", "promoted", 91), ended("done", "refused", 15), ended("new", "promoted", 1),
              ended("failed", "failed", 91, waits=True),
              ended("tried", "refused", 91, waits=True), ended("over", "failed", 91), ended("again", "failed", 15)),
        checkpoints=tuple(Path("at") / name for name in ("active", "failed", "again", "new", "nobody")),
        active=frozenset({"active"}),
    )  # fmt: skip
    assert gone(facts, Prune()) == {"old", "done/train.jsonl", "over", "at/failed", "at/new", "at/nobody"}


def test_pruning_a_home_leaves_it_whole(whole: Home) -> None:
    """All signals, what is served, the way back, and the active job's parent; fsck agrees."""
    done = pruning.carry_out(whole, TIGHT, LATER)
    assert {act.kind for act in done} == {"remove", "compress"}
    assert fsck.check(whole).problems == () and fsck.check(whole).counts == whole_home.COUNTS
    assert {str(known) for known in adapters.list_ids(whole)} == {"helper/git-v1.0", "helper/git-v1.2"}
    assert jobs.completed(whole) == [] and len(jobs.active(whole)) == 1
    assert registry.roll_back(whole, "helper", LATER, "worse").stack[0].adapter == "helper/git-v1.0"
    assert pruning.carry_out(whole, TIGHT, LATER) == []


def test_a_rollback_to_what_was_pruned_is_refused(whole: Home) -> None:
    """In a sentence, and nothing is promoted."""
    files.remove(whole.adapter("helper/git-v1.0"))
    with pytest.raises(Conflict, match=r"promotion 1 .*git-v1\.0 is not there"):
        registry.roll_back(whole, "helper", NOW, "worse")
    assert len(registry.history(whole, "helper")) == 2


def test_what_lies_behind_a_rollback_may_have_been_pruned(whole: Home) -> None:
    """fsck notes it, as nothing that was promised is broken."""
    for name in ("helper/git-v1.1", "helper/git-v1.0"):
        registry.deploy(whole, name, NOW, "by hand")
    registry.roll_back(whole, "helper", NOW, "worse")
    registry.roll_back(whole, "helper", NOW, "worse still")
    files.remove(whole.adapter("helper/git-v1.0"))
    report = fsck.check(whole)
    assert report.problems == () and "promotion 1 of helper cannot be returned to" in "; ".join(report.notes)


def test_a_failed_job_is_kept_while_its_batch_waits(whole: Home) -> None:
    """Else the planner would order it anew, and it would fail again, for ever."""
    directory = jobs.active(whole)[0]
    Result(reason="no memory").write(directory.result_file)
    kept = jobs.complete(whole, directory)
    pruning.carry_out(whole, TIGHT, LATER)
    assert [job.path for job in jobs.completed(whole)] == [kept.path] and kept.examples.exists()


@pytest.mark.parametrize("searched", [False, True])
def test_what_attempts_and_probes_are_counted_by_is_kept(whole: Home, searched: bool) -> None:
    """Refused jobs of a queued batch: else the ladder would begin anew with an adapter of long ago. And what a search
    of a batch that was set aside has found so far."""
    directory = jobs.active(whole)[0]
    job = directory.job()
    Result(adapter="helper/git-v9.0").write(directory.result_file)
    Verdict(
        job=job.id, candidate="helper/git-v9.0", incumbent=(), promote=False, reason="worse", findings=(), created=0
    ).write(directory.verdict_file)
    kept = jobs.complete(whole, directory)
    if searched:
        batch = batches.find(whole, job.batch)
        batches.set_aside(whole, batch, "worse")
        files.write(whole.search(batch.persona, batch.domain, batch.id), b"{}")
    else:
        following = jobs.next_id(whole, job.batch)
        assert following != job.id
    pruning.carry_out(whole, TIGHT, LATER)
    assert [found.path for found in jobs.completed(whole)] == [kept.path]
    if not searched:
        assert jobs.next_id(whole, job.batch) == following


def everything(home: Home) -> list[Any]:
    """What all readers of segments find."""
    ended = [*batches.archived(home, "helper", "git"), *batches.set_aside_batches(home, "helper", "git")]
    found = [list(batches.signals(home, batch)) for batch in ended]
    again = opened(home)
    paths = sorted(batches.all_segments(home, "helper", "git"))
    lines = [list(segments.scan(path)) for path in paths]
    return [found, again.progress, sorted(again.ledger.recent), lines, [path.name for path in paths]]


def test_compressed_segments_read_as_before(whole: Home) -> None:
    """Signals, offsets, names and the number that comes next; half the room at most."""
    before, day = everything(whole), "2025-11-24"
    sizes = {path: path.stat().st_size for path in whole.archive("helper", "git").glob("*/*.jsonl")}
    following = batches.next_segment(whole, "helper", "git", day)
    done = pruning.carry_out(whole, COMPRESS, LATER)
    assert len(done) == 3 and {act.kind for act in done} == {"compress"}
    assert everything(whole) == before and batches.next_segment(whole, "helper", "git", day) == following
    assert sizes and not any(path.exists() for path in sizes)
    assert sum(segments.packed(path).stat().st_size for path in sizes) < sum(sizes.values()) / 2
    assert fsck.check(whole).problems == ()


def test_a_compressed_segment_is_read_from_an_offset(whole: Home) -> None:
    """Offsets count what is inside, as the ledger's marks do."""
    path = next(whole.archive("helper", "git").glob("*/*.jsonl"))
    ends = [end for end, _ in segments.scan(path)]
    rest = list(segments.scan(path, ends[2]))
    segments.pack(path)
    segments.shed(path)
    assert list(segments.scan(path, ends[2])) == rest and list(segments.scan(path, ends[-1])) == []


@pytest.mark.parametrize("harm", [lambda d: d[:-9], lambda d: d[:30] + b"xxxx" + d[34:], lambda d: b"x" * 50])
def test_a_damaged_compressed_segment_is_told(whole: Home, harm: Callable[[bytes], bytes]) -> None:
    """Reading raises, and fsck names it: what is missing is never taken for the end."""
    pruning.carry_out(whole, COMPRESS, LATER)
    path = sorted(whole.archive("helper", "git").glob("*/*.zst"))[0]
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(Damaged, match="cannot be unpacked"):
        list(segments.scan(path.with_suffix("")))
    assert "cannot be unpacked" in "\n".join(problem.what for problem in fsck.check(whole).problems)


def test_only_what_reads_back_takes_the_place_of_the_plain_file(whole: Home) -> None:
    """A compressed file that holds something else is refused, and the plain one stays and counts."""
    one, two, *_ = sorted(whole.archive("helper", "git").glob("*/*.jsonl"))
    before = everything(whole)
    segments.pack(two)
    segments.packed(two).rename(segments.packed(one))
    with pytest.raises(Damaged, match="does not hold"):
        segments.shed(one)
    assert everything(whole) == before
    assert fsck.check(whole, repair=True).problems == () and not segments.packed(one).exists()


def test_a_crash_while_compressing_loses_nothing(whole: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before each act in turn: the home reads the same, what is left over is repaired, and the next try ends."""
    before = everything(whole)
    for at in range(200):
        stopping = Stopping(at)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(files, "os", stopping)
                pruning.carry_out(whole, COMPRESS, LATER)
        except Killed:
            pass
        assert everything(whole) == before
        report = fsck.check(whole)
        assert all(problem.repairable for problem in report.problems) and report.counts == whole_home.COUNTS
        if not stopping.reached:
            break
    assert at > 5 and fsck.check(whole, repair=True).problems == ()
    assert pruning.carry_out(whole, COMPRESS, LATER) == [] and everything(whole) == before


def test_what_another_process_did_meanwhile_is_no_failure(whole: Home) -> None:
    """Two prunes at once: the slower one finds the segment compressed."""
    path = next(whole.archive("helper", "git").glob("*/*.jsonl"))
    segments.pack(path)
    segments.shed(path)
    assert pruning._compress(whole, path) is False
    assert Act("compress", path, "") not in pruning.carry_out(whole, COMPRESS, LATER)

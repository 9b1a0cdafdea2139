"""Feedback is read from the segments, each line once, wherever they lie by now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixed import NOW
from whole_home import fill

from genome import batches, fsck, segments
from genome.buffer import Buffer
from genome.config import Intake
from genome.feedback import SATISFACTION, Feedback, Sample, Standing
from genome.layout import Home
from genome.lines import from_signal
from genome.signals import Defaults, from_object

OLD, NEW = "helper/git-v1.0", "helper/git-v1.1"
DAY = 86_400.0


def take(home: Home, *lines: dict[str, Any], now: float = NOW) -> None:
    """Accepts lines of helper/git."""
    defaults = Defaults(int(now * 1000), "helper", "git")
    found = [from_signal(from_object(line, defaults)) for line in lines]
    receipt = Buffer(home, Intake()).accept(found, now)
    assert receipt.accepted == len(lines)


def about(version: str, kind: str, number: int, **fields: Any) -> dict[str, Any]:
    """A signal about a reply of a version."""
    outputs = {"correctOutput": "a"} if kind in ("correction", "import") else {"wrongOutput": "w"}
    return {"type": kind, "input": f"q {number}", "adapter": {"id": version}, **outputs, **fields}


def test_what_signals_say_of_a_reply(home: Home) -> None:
    """Positive is 1, mistake and correction are 0, an import says nothing; a metric says what it says."""
    kinds = ("positive", "mistake", "correction", "import")
    take(home, *(about(NEW, kind, number, timestamp=1000 * number) for number, kind in enumerate(kinds, 1)))
    take(home, {"metric": "csat", "value": 0.8, "adapter": {"id": OLD}}, {"metric": "csat", "value": 0.4})
    found = Feedback(home, 30)
    assert found.samples("helper", "git", SATISFACTION, 2.0) == [
        Sample(time, SATISFACTION, 0.0, NEW) for time in (2.0, 3.0)
    ]
    assert found.by_version("helper", "git", SATISFACTION) == {NEW: Standing(3, 1 / 3)}
    assert found.by_version("helper", "git", "csat") == {"": Standing(1, 0.4), OLD: Standing(1, 0.8)}
    assert found.metrics("helper", "git") == ["csat", SATISFACTION]


def test_samples_are_oldest_first_and_arrivals_as_they_came(home: Home) -> None:
    """A report that comes late is put where it belongs, but changes nobody's place among what arrived."""
    for time in (3, 1, 2):
        take(home, {"metric": "csat", "value": time / 10, "timestamp": time * 1000})
    found = Feedback(home, 30)
    assert [sample.time for sample in found.samples("helper", "git", "csat", 0)] == [1, 2, 3]
    assert [sample.time for sample in found.arrived("helper", "git", "csat", 0)] == [3, 1, 2]


def test_each_line_counts_once_wherever_it_lies(home: Home, signal: Callable[..., Any]) -> None:
    """Pending, queued, archived, compressed, withdrawn: a reader that looks at every step and one that comes last
    agree."""
    watching, places = Feedback(home, 30), []
    take(home, *(about(OLD, "positive", number) for number in range(3)))
    seen = [watching.by_version("helper", "git", SATISFACTION)[OLD].samples]
    batch = fill(home, [signal(number, adapter={"id": OLD}) for number in range(10)], NOW)
    seen.append(watching.by_version("helper", "git", SATISFACTION)[OLD].samples)
    batches.archive(home, batch)
    take(home, about(OLD, "positive", 99))
    seen.append(watching.by_version("helper", "git", SATISFACTION)[OLD].samples)
    for name in batch.segments:
        path = home.archive("helper", "git") / batch.id / name
        segments.pack(path)
        segments.shed(path)
    places.append(Feedback(home, 30).by_version("helper", "git", SATISFACTION))
    batches.withdraw(home, batch, "worse")
    places += [each.by_version("helper", "git", SATISFACTION) for each in (watching, Feedback(home, 30))]
    assert seen == [3, 13, 14] and [place[OLD].samples for place in places] == [14, 14, 14]


def test_only_so_many_days_are_kept(home: Home, signal: Callable[..., Any]) -> None:
    """And only so many samples; segments that ended before are not even read."""
    take(home, {"metric": "csat", "value": 0.1}, now=NOW - 90 * DAY)
    old = fill(home, [signal(number) for number in range(10)], NOW - 90 * DAY)
    batches.archive(home, old)
    take(home, *({"metric": "csat", "value": 0.2, "timestamp": number} for number in range(5)), now=NOW - 20 * DAY)
    fill(home, [signal(number + 20) for number in range(10)], NOW - 20 * DAY)
    take(home, {"metric": "csat", "value": 0.3}, now=NOW)
    assert [sample.value for sample in Feedback(home, 30).samples("helper", "git", "csat", 0)] == [0.2] * 5 + [0.3]
    assert [sample.value for sample in Feedback(home, 30, kept=12).arrived("helper", "git", "csat", 0)] == [0.2, 0.3]
    growing = Feedback(home, 30)
    growing.metrics("helper", "git")
    take(home, {"metric": "csat", "value": 0.4}, now=NOW + 25 * DAY)
    assert [sample.value for sample in growing.samples("helper", "git", "csat", 0)] == [0.3, 0.4]


def test_a_segment_archived_late_is_not_looked_for_for_ever(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read while it waited, and is too old when it leaves, costs one look at the archive and no more."""
    growing = Feedback(home, 30)
    old = fill(home, [signal(number) for number in range(10)], NOW - 90 * DAY)
    growing.metrics("helper", "git")
    fill(home, [signal(number + 20) for number in range(10)], NOW - 80 * DAY)
    take(home, {"metric": "csat", "value": 0.3}, now=NOW)
    growing.metrics("helper", "git")
    batches.archive(home, old)
    growing.metrics("helper", "git")
    monkeypatch.setattr(batches, "all_segments", None)
    assert growing.metrics("helper", "git") == ["csat"]


def test_a_withdrawn_batch_is_set_aside_whole(home: Home, signal: Callable[..., Any]) -> None:
    """Wherever a crash fell, starting again ends it; fsck counts the same signals before and after."""
    batch = fill(home, [signal(number) for number in range(10)], NOW)
    home_of = {place: place("helper", "git") / batch.id for place in (home.archive, home.set_aside)}
    batches.archive(home, batch)
    before = fsck.check(home)
    home_of[home.archive].joinpath(batch.segments[0]).rename(home.pending("helper", "git") / batch.segments[0])
    batches.withdraw(home, batch, "worse by 9 points")
    batches.withdraw(home, batch, "again")
    assert [each.id for each in batches.set_aside_batches(home, "helper", "git")] == [batch.id]
    assert batches.archived(home, "helper", "git") == [] and not home_of[home.archive].exists()
    assert (home_of[home.set_aside] / "reason.txt").read_text() == "worse by 9 points\n"
    assert len(list(batches.signals(home, batch))) == 10
    after = fsck.check(home)
    assert (before.problems, after.problems) == ((), ())

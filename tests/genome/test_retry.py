"""Refused lines can be taken after all: exactly once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixed import NOW
from stopping import Killed, Stopping
from test_buffer import opened, take

from genome import files, fsck, pending, rejected, segments
from genome.config import Intake
from genome.layout import Home
from genome.retry import Again, retry

Make = Callable[..., Any]
HELPER = Intake(default_persona="helper")


@pytest.fixture
def refused(home: Home, drop: Make, correction: Make) -> Home:
    """Two lines that name no persona, around one that is none."""
    drop(correction(0, personaId=None), b"nope", correction(1, personaId=None))
    assert take(home, opened(home)).rejected == 3
    return home


def test_lines_that_can_be_read_by_now_are_taken(refused: Home) -> None:
    """Once; the others stay, and a daemon that knows nothing of the new setting takes them as well."""
    again = retry(refused, HELPER, NOW)
    assert (again.lines, [line.raw_bytes for line, _ in again.kept]) == (2, [b"nope"])
    assert [path.parent for path in again.files] == [refused.inbox / "helper" / "git"]
    assert take(refused, opened(refused)).accepted == 2
    assert retry(refused, HELPER, NOW).lines == 0
    assert take(refused, opened(refused)).accepted == 0
    assert [line.raw_bytes for line in rejected.read(refused)] == [b"nope"]
    assert fsck.check(refused).problems == () and fsck.check(refused).counts["rejected"] == 1


def test_where_a_retried_signal_came_from_can_be_told(refused: Home) -> None:
    """Its origin is the file in the inbox, and rejected/retried.jsonl says which refused line lies in that."""
    retry(refused, HELPER, NOW)
    take(refused, opened(refused))
    segment = next(refused.pending("helper", "git").glob("*.jsonl"))
    origins = {stored.origin.name for _, stored in segments.scan(segment) if stored.origin}
    told = [line for _, line in rejected._scan(refused.retried, 0, rejected.Retried)]
    assert origins == {line.into for line in told} and {line.identity for line in told} == rejected.retried(refused)


def test_the_place_of_a_line_counts_again(home: Home, correction: Make) -> None:
    """A line of inbox/<persona>/<domain>/ is of that persona when it is read again."""
    place = home.inbox / "other" / "soup"
    place.mkdir(parents=True)
    (place / "long.jsonl").write_bytes(b'{"prompt": "' + b"x" * 2000 + b'", "completion": "y"}\n')
    assert take(home, opened(home, limit=1000)).rejected == 1
    assert retry(home, Intake(max_line_bytes=1000), NOW).kept[0][1].startswith("longer than the limit")
    assert retry(home, Intake(), NOW).lines == 1
    take(home, opened(home))
    assert pending.count(home, "other", "soup").examples == 1


def test_the_beginning_of_a_line_is_not_taken_for_it(home: Home, drop: Make) -> None:
    """A line of which only a part was kept stays refused, also where that part can be read by itself."""
    whole = b'{"prompt":"a","completion":"b","personaId":"p"}'
    drop(whole + b" " * (5 << 20) + b"x")
    assert take(home, opened(home, limit=256)).rejected == 1
    assert not next(rejected.read(home)).whole
    assert retry(home, Intake(), NOW).lines == 0


def test_what_is_refused_meanwhile_is_not_touched(refused: Home, drop: Make) -> None:
    """The daemon appends to the day's file while lines are retried, and finds it as it left it."""
    into = opened(refused)
    retry(refused, HELPER, NOW)
    drop(b"also nope", name="second.jsonl")
    take(refused, into)
    assert [line.raw_bytes for line in rejected.read(refused)] == [b"nope", b"also nope"]
    take(refused, opened(refused))
    assert len(list(rejected.read(refused))) == 2


def test_a_crash_at_any_act_loses_and_doubles_nothing(
    home: Home, drop: Make, correction: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each act in turn, with the daemon reading in between; then tried again."""
    for at in range(1000):
        persona = f"p{at}"
        drop(correction(0, personaId=None), correction(1, personaId=None), name=f"{at}.jsonl")
        take(home, opened(home))
        stopping = Stopping(at)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(files, "os", stopping)
                done: Again | None = retry(home, Intake(default_persona=persona), NOW)
        except Killed:
            done = None
        into = opened(home)
        take(home, into)
        retry(home, Intake(default_persona=persona), NOW)
        take(home, into)
        assert pending.count(home, persona, "git").examples == 2
        assert list(rejected.read(home)) == []
        if done is not None:
            break
    assert at > 10 and not list(home.inbox.rglob(".*"))

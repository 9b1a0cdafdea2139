"""Cron expressions and quiet hours on the clocks of several zones, through every change of clocks of a year."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from genome import schedules
from genome.schedules import instant, newest_run, next_run, quiet_until, wall

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Europe/Dublin", "Pacific/Apia", "UTC")
"""Lord Howe's clocks move by half an hour; Dublin's winter is the exception; Apia had no 30 December 2011."""
BERLIN = ZoneInfo("Europe/Berlin")
YEAR = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
NEXT_YEAR = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def at(text: str, zone: ZoneInfo | None = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def runs(cron: str, zone: ZoneInfo | None, begin: float, end: float) -> Iterator[float]:
    while (begin := next_run(cron, zone, begin)) < end:
        yield begin


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("minute_of_day", [0, 90, 119, 120, 135, 150, 179, 180, 181, 1439])
def test_a_daily_time_comes_once_a_day(name: str, minute_of_day: int) -> None:
    """Also on the days on which it does not exist, or occurs twice."""
    zone, hour, minute = ZoneInfo(name), minute_of_day // 60, minute_of_day % 60
    found = [wall(run, zone).date() for run in runs(f"{minute} {hour} * * *", zone, YEAR, NEXT_YEAR)]
    assert len(set(found)) == len(found)
    assert {second - first for first, second in itertools.pairwise(found)} == {timedelta(days=1)}


def test_a_time_that_does_not_exist_comes_at_the_end_of_the_jump() -> None:
    """Once, for however many times the jump swallows; and the day after it is itself again."""
    jump = at("2025-03-30T03:00")
    assert list(runs("30 2 * * *", BERLIN, at("2025-03-29T12:00"), at("2025-03-31T12:00"))) == [
        jump, at("2025-03-31T02:30")
    ]  # fmt: skip
    assert list(runs("*/20 2 * * *", BERLIN, at("2025-03-30T01:00"), at("2025-03-30T12:00"))) == [jump]
    assert instant(datetime(2011, 12, 30, 12), ZoneInfo("Pacific/Apia")) == at(
        "2011-12-31T00:00", ZoneInfo("Pacific/Apia")
    )


def test_a_time_that_occurs_twice_counts_the_first_time() -> None:
    """In the second pass of the hour nothing is due, and looking then finds the run of the first."""
    first, second = at("2025-10-26T02:30"), at("2025-10-26T02:30", fold=1)
    assert second - first == 3600
    assert list(runs("30 2 * * *", BERLIN, at("2025-10-26T00:00"), at("2025-10-27T00:00"))) == [first]
    assert next_run("30 2 * * *", BERLIN, second - 600) == at("2025-10-27T02:30")
    assert newest_run("*/15 * * * *", BERLIN, second) == at("2025-10-26T02:45")


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("cron", ["*/20 * * * *", "30 2 * * *", "0 */5 * * *"])
def test_looking_back_and_ahead_agree(name: str, cron: str) -> None:
    """Between two runs the newest is the one and the next the other, at every moment around a change of clocks."""
    zone = ZoneInfo(name)
    changes = [t for t in range(int(YEAR), int(NEXT_YEAR), 1800) if _offset(t, zone) != _offset(t + 1800, zone)]
    for change in changes or [int(YEAR)]:
        found = list(runs(cron, zone, change - 90_000, change + 90_000))
        assert found == sorted(set(found))
        for run, later in itertools.pairwise(found):
            for moment in (run, (run + later) / 2, later - 0.001):
                assert newest_run(cron, zone, moment) == run and next_run(cron, zone, moment) == later


def test_leap_days_and_names() -> None:
    """29 February waits for a leap year; @daily is midnight on the wall; whitespace and weekday names are taken."""
    assert schedules.check_cron("0 0 29 2 *") == "0 0 29 2 *"
    assert next_run("0 0 29 2 *", BERLIN, at("2025-06-01T00:00")) == at("2028-02-29T00:00")
    assert next_run("@daily", BERLIN, at("2025-06-01T00:00")) == at("2025-06-02T00:00")
    assert wall(next_run(schedules.check_cron(" 0 9 * * mon "), BERLIN, YEAR), BERLIN).weekday() == 0


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("* * * * * *", "has 6 fields"),
        ("", "has 0 fields"),
        ("61 * * * *", "out of range"),
        ("0 0 31 2 *", "ever comes true"),
        ("@reboot", "is none of @hourly"),
        ("R 3 * * *", "by lot"),
        ("h(0-9) 3 * * *", "by lot"),
        ("every day", "has 2 fields"),
    ],
)
def test_what_is_no_schedule_is_refused(expression: str, reason: str) -> None:
    """With what is wrong about it, when the config is read and not at three in the morning."""
    with pytest.raises(ValueError, match=reason):
        schedules.check_cron(expression)


def test_an_unknown_zone_is_refused() -> None:
    """Also one that would lead out of the database."""
    for name in ("Mars/Olympus", "../../etc/passwd", "Europe"):
        with pytest.raises(ValueError, match="no time zone"):
            schedules.zone(name)


def test_the_machines_own_zone_is_what_the_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty name follows $TZ, with its changes of clocks."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        there = ZoneInfo("America/New_York")
        for cron in ("30 2 * * *", "*/30 1 * * *"):
            assert list(runs(cron, schedules.zone(""), YEAR, NEXT_YEAR)) == list(runs(cron, there, YEAR, NEXT_YEAR))
        assert schedules.shown(at("2025-07-01T12:00", there), None) == "2025-07-01 12:00 EDT"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_quiet_hours_end_when_the_wall_says_so() -> None:
    """Over midnight, one period into the next, and not a second later."""
    night = ("22:00-07:00", "07:00-07:30")
    assert quiet_until(night, BERLIN, at("2025-06-01T23:00")) == at("2025-06-02T07:30")
    assert quiet_until(night, BERLIN, at("2025-06-02T07:29:59")) == at("2025-06-02T07:30")
    assert quiet_until(night, BERLIN, at("2025-06-02T07:30")) is None
    assert quiet_until(night, BERLIN, at("2025-06-02T22:00")) == at("2025-06-03T07:30")
    assert quiet_until(("20:00-24:00",), BERLIN, at("2025-06-02T22:00")) == at("2025-06-03T00:00")
    assert quiet_until((), BERLIN, at("2025-06-02T22:00")) is None


@pytest.mark.parametrize("name", ZONES)
def test_quiet_hours_hold_through_changes_of_clocks(name: str) -> None:
    """At every quarter of an hour of a year: it is quiet exactly while the wall shows those hours, and the end that is
    given is the first moment at which it shows others."""
    zone, periods = ZoneInfo(name), ("22:00-02:30",)
    for now in range(int(YEAR), int(NEXT_YEAR), 900):
        showing = wall(now, zone).time()
        quiet = showing.hour >= 22 or (showing.hour, showing.minute) < (2, 30)
        until = quiet_until(periods, zone, now)
        assert (until is not None) == quiet
        if until is not None:
            assert now < until <= now + 6 * 3600
            assert quiet_until(periods, zone, until) is None
            assert quiet_until(periods, zone, until - 1) == until


@pytest.mark.parametrize("text", ["22-7", "24:00-07:00", "25:00-07:00", "07:00-07:00", "22:00"])
def test_what_is_no_period_is_refused(text: str) -> None:
    """And so is a day without an hour in which anything could start."""
    with pytest.raises(ValueError, match=r"22:00-07:00|begins where it ends"):
        schedules.check_quiet((text,))
    with pytest.raises(ValueError, match="the whole day"):
        schedules.check_quiet(("22:00-07:00", "06:30-22:00"))


def _offset(moment: float, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(moment, zone).utcoffset()

"""Times on the clock of a wall: cron expressions and quiet hours in a time zone, as seconds since 1970.

Where the clock jumps ahead, a time that does not exist that day counts as the end of the jump: what was planned for
02:30 happens at 03:00, once, however many planned times the jump swallows. Where the clock goes back, a time that
occurs twice counts the first time alone. So a schedule never runs twice for one time on the wall, and never skips a
day. Quiet hours follow what the wall shows: they may be entered twice in the night in which an hour comes twice.

All local times are naive datetimes, and are turned into instants by `instant`; PEP 495 says what ``fold`` means.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

Zone = ZoneInfo | None
"""None: the machine's own, as $TZ or /etc/localtime says."""

NAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
CHANCE = re.compile(r"(^|[\s,])[hr]([\s(/,]|$)", re.IGNORECASE)
"""croniter's fields for a time that is drawn by lot: a schedule whose times differ at every look is none."""
PERIOD = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))")
DAY = timedelta(days=1)


@lru_cache
def zone(name: str) -> Zone:
    """Of an IANA name; empty: the machine's own. Raises ValueError for one that is not known."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # by how it is misspelt
        hint = "give an IANA name, such as Europe/Berlin"
        raise ValueError(f"{name!r} is no time zone this machine knows; {hint}") from None


def wall(at: float, zone: Zone) -> datetime:
    """What the clock shows."""
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None, fold=0)


def instant(shown: datetime, zone: Zone) -> float:
    """The first time at which the clock shows that; where it jumps over it, the end of the jump."""
    first, second = _at(shown, zone, 0), _at(shown, zone, 1)
    if first <= second:
        return first
    before, after = int(second), int(first)  # the clock jumps between these two
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if wall(middle, zone) < shown else (before, middle)
    return float(after)


def shown(at: float, zone: Zone) -> str:
    """For a person, e.g. ``2026-11-22 03:00 CET``."""
    return f"{datetime.fromtimestamp(at, zone).astimezone(zone):%Y-%m-%d %H:%M %Z}"


# Cron


def check_cron(expression: str) -> str:
    """Returns an expression of five fields, or one of `NAMES`; else raises ValueError."""
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NAMES:
            raise ValueError(f"{text!r} is none of {', '.join(NAMES)}")
        return text
    if (fields := len(text.split())) != 5:
        raise ValueError(
            f"{text!r} has {fields} fields; a cron expression has five: minute, hour, day of the month, month, weekday"
        )
    if CHANCE.search(text):
        raise ValueError(f"{text!r} draws its time by lot (H, R); give the time itself")
    try:
        croniter(text, datetime(2000, 1, 1)).get_next(datetime)
    except CroniterError as error:
        raise ValueError(f"{text!r} is no cron expression that ever comes true: {error}") from error
    return text


def next_run(cron: str, zone: Zone, after: float) -> float:
    """The first time the schedule names that is later than ``after``."""
    runs = croniter(cron, wall(after, zone))
    while True:
        # Where the clock shows an hour for the second time, its times lie behind.
        if (run := instant(runs.get_next(datetime), zone)) > after:
            return run


def newest_run(cron: str, zone: Zone, until: float) -> float:
    """The last time the schedule names that is not later than ``until``."""
    showing = wall(until, zone)
    # In an hour that comes twice, the wall shows less than it did before.
    again = max(0.0, _at(showing, zone, 1) - _at(showing, zone, 0))
    runs = croniter(cron, showing.replace(microsecond=0) + timedelta(seconds=again + 1))
    while True:
        if (run := instant(runs.get_prev(datetime), zone)) <= until:
            return run


# Quiet hours


def check_quiet(periods: tuple[str, ...]) -> tuple[str, ...]:
    """Returns periods such as ``22:00-07:00``; raises ValueError for what is none, and where nothing is left open."""
    quiet = bytearray(24 * 60)
    for text in periods:
        begin, end = _period(text)
        for minute in range(begin, end if end > begin else end + len(quiet)):
            quiet[minute % len(quiet)] = 1
    if all(quiet):
        raise ValueError("quiet hours cover the whole day: nothing would ever start by itself")
    return periods


def quiet_until(periods: tuple[str, ...], zone: Zone, now: float) -> float | None:
    """When the quiet hours end that the clock stands in; None: it stands in none."""
    until = now
    while (end := max((_end(text, zone, until) for text in periods), default=until)) > until:
        until = end
    return until if until > now else None


def _end(text: str, zone: Zone, now: float) -> float:
    """When the period ends that the clock stands in at ``now``; ``now`` if it is another hour."""
    begin, end = _period(text)
    showing = wall(now, zone)
    minute = showing.hour * 60 + showing.minute
    inside = begin <= minute < end if begin < end else not end <= minute < begin
    if not inside:
        return now
    day = datetime.combine(showing.date(), time())
    ends = day + timedelta(minutes=end) + (DAY if minute >= end else timedelta())
    first = instant(ends, zone)
    return first if first > now else _at(ends, zone, 1)  # the hour in which it ends comes twice, and this is the second


def _period(text: str) -> tuple[int, int]:
    """Minutes of the day: from, to."""
    found = PERIOD.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no period of a day; write it as 22:00-07:00")
    hour, minute, *rest = (int(part) for part in found.groups() if part is not None)
    begin, end = hour * 60 + minute, rest[0] * 60 + rest[1]
    if begin == end:
        raise ValueError(f"{text!r} begins where it ends")
    return begin, end


def _at(shown: datetime, zone: Zone, fold: int) -> float:
    return shown.replace(fold=fold, tzinfo=zone).timestamp()

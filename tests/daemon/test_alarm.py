"""What wakes a loop: a ring, or a time."""

from __future__ import annotations

import time

import anyio
import pytest

from daemon import events
from daemon.events import Alarm, Alarms


async def test_it_wakes_at_the_time_and_not_before() -> None:
    """A loop that is woken early finds nothing due, and looks again at once."""
    until = time.time() + 0.03
    with anyio.fail_after(10):
        await Alarm().wait(until)
    assert time.time() >= until


async def test_a_clock_that_was_set_or_a_machine_that_slept_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that is waited for is the one on the clock, not so many seconds from now."""
    monkeypatch.setattr(events, "CLOCK_SECONDS", 0.001)
    real, woken = time.time, anyio.Event()

    async def wait() -> None:
        await Alarm().wait(real() + 3600)
        woken.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not woken.is_set()
            monkeypatch.setattr(events.time, "time", lambda: real() + 3601)


async def test_a_ring_wakes_at_once_and_is_not_lost() -> None:
    """Also one that came while nobody waited; and of several alarms each."""
    alarms = Alarms((Alarm(), Alarm()))
    alarms.ring()
    with anyio.fail_after(10):
        for alarm in alarms.each:
            await alarm.wait(None)
            await alarm.wait(0.0)


async def test_the_rest_begins_when_a_step_ends() -> None:
    """A step that takes longer than its loop's rest is not followed by the next at once."""
    alarm = Alarm(rest_seconds=0.05)
    alarm.ring()
    await alarm.wait(None)
    alarm.ring()
    await anyio.sleep(0.05)  # the step
    ended = anyio.current_time()
    await alarm.wait(None)
    assert anyio.current_time() - ended >= 0.05

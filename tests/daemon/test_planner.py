"""The planner loop, a step at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from fixed import NOW

from daemon import orders, planner
from daemon.events import Alarm, Announcer
from daemon.planner import Planner
from genome import batches, jobs, trigger_facts
from genome.batches import Batch
from genome.buffer import Buffer
from genome.config import Config
from genome.errors import InvalidAdapter, NotFound
from genome.feedback import SATISFACTION, Sample
from genome.layout import Home
from genome.lines import from_signal
from genome.training import Job

CONFIG = Config.model_validate(
    {"base": "base", "triggers": {"threshold": {"min_examples": 5}}, "gate": {"anchors": 0, "min_held_out": 2},
     "training": {"trainer": "torch"}}
)  # fmt: skip


async def test_a_damaged_domain_holds_up_no_other(home: Home, signal: Callable[..., Any]) -> None:
    """Its line is named where one looks for what a domain waits for; the others are sealed and ordered."""
    lines = [from_signal(signal(number, domain=domain)) for domain in ("a", "b") for number in range(10)]
    Buffer(home, CONFIG.intake).accept(lines, NOW)
    segment = next(home.pending("helper", "a").glob("*.jsonl"))
    segment.write_bytes(b"{}\n" + segment.read_bytes())
    loop = Planner(home, CONFIG, home.root, "f" * 64, None, Announcer(), Alarm())  # type: ignore[arg-type]
    await loop.step()
    assert [batch.domain for batch in batches.all_queued(home)] == ["b"]
    assert "genome fsck" in loop.waiting["helper/a"] and planner.unordered(home) == []


async def test_what_came_to_nothing_is_not_sealed_again(home: Home, signal: Callable[..., Any]) -> None:
    """Signals that lose to archived ones leave too few: they are looked at again when more wait, not at every wake."""
    into = Buffer(home, CONFIG.intake)
    policy = batches.HeldOutPolicy(0.3, 150)
    into.accept([from_signal(signal(number)) for number in range(10)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, policy)
    assert batch is not None
    batches.archive(home, batch)
    loop = Planner(home, CONFIG, home.root, "f" * 64, None, Announcer(), Alarm())  # type: ignore[arg-type]
    into.accept([from_signal(signal(number, source="ai", correctOutput="other")) for number in range(10)], NOW)
    for _ in range(3):
        await loop.step()
        into.accept([from_signal(signal(0, id="again"))], NOW)  # a duplicate but for the first: nothing new waits
    assert len(list(home.pending("helper", "git").glob("*.jsonl"))) == 2 and batches.all_queued(home) == []


DAY = 86_400.0
BEGIN = datetime(2025, 3, 28, 12, tzinfo=UTC).timestamp()
"""Two days before the clocks of Berlin jump ahead."""


class Clock:
    """Of the planner, and of what it orders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = BEGIN
        monkeypatch.setattr(orders, "time", SimpleNamespace(time=self))

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def planner_of(home: Home, clock: Clock, triggers: dict[str, Any], **more: Any) -> Planner:
    settings = {"base": "base", "triggers": {"threshold": False, **triggers}, "training": {"trainer": "torch"},
                "gate": {"anchors": 0, "min_held_out": 2}}  # fmt: skip
    personas = more.pop("personas", {})
    config = Config.model_validate({**settings, "personas": personas})
    return Planner(home, config, home.root, "f" * 64, None, Announcer(), Alarm(), clock=clock, **more)  # type: ignore[arg-type]


@pytest.fixture
def wait(home: Home, signal: Callable[..., Any], clock: Clock) -> Callable[..., None]:
    """Lets ten more signals wait."""
    into, numbers = Buffer(home, CONFIG.intake), count()

    def more(signals: int = 10, domain: str = "git") -> None:
        lines = [from_signal(signal(next(numbers), domain=domain)) for _ in range(signals)]
        into.accept(lines, clock.now)

    return more


async def told(loop: Planner) -> list[tuple[str, dict[str, Any]]]:
    """One step; what it told."""
    with loop.announcer.watch() as events:
        await loop.step()
        return [(event.name, event.facts) for event in drain(events)]


def drain(events: Any) -> Iterator[Any]:
    with suppress(anyio.WouldBlock):
        while True:
            yield events.receive_nowait()


async def test_it_sleeps_until_exactly_the_next_time(home: Home, clock: Clock, wait: Callable[..., None]) -> None:
    """Five days of a daily schedule, over a change of clocks: five looks, each at its time, and a batch at each."""
    loop = planner_of(home, clock, {"scheduled": {"cron": "30 2 * * *", "time_zone": "Europe/Berlin"}})
    wait()
    looks, formed = [], []
    look_again = await loop.step()
    while look_again is not None and look_again < BEGIN + 5 * DAY:
        clock.now = look_again
        looks.append(look_again)
        formed += [facts["batch"] for name, facts in await told(loop) if name == "batch_formed"]
        wait()
        look_again = await loop.step()
    assert [f"{datetime.fromtimestamp(look, UTC):%d %H:%M}" for look in looks] == [
        "29 01:30", "30 01:00", "31 00:30", "01 00:30", "02 00:30"
    ]  # fmt: skip
    assert len(formed) == 5


async def test_a_batch_that_no_job_can_be_ordered_for_holds_up_no_other(
    home: Home, clock: Clock, wait: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one persona serves what was made for another base; the error is told when the others have theirs."""
    ordered = orders.order

    def order(home: Home, config: Config, batch: Batch, *base: Any) -> Job:
        if batch.domain == "git":
            raise InvalidAdapter("made for another base")
        return ordered(home, config, batch, *base)

    monkeypatch.setattr(orders, "order", order)
    for domain in ("git", "svn"):
        wait(domain=domain)
    loop = planner_of(home, clock, {"threshold": {"min_examples": 10}})
    with pytest.raises(InvalidAdapter, match="another base"):
        await loop.step()
    assert [directory.job().domain for directory in jobs.active(home)] == ["svn"]


async def test_killed_before_it_remembers_it_forms_nothing_twice(
    home: Home, clock: Clock, wait: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is the answer to the run; what came since waits for the next one."""
    schedule = {"scheduled": {"cron": "@daily", "time_zone": "UTC"}}
    wait()
    await planner_of(home, clock, schedule).step()
    clock.now = BEGIN + DAY / 2
    before = home.triggers("helper", "git").read_bytes()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trigger_facts, "remember", dying)
        await planner_of(home, clock, schedule).step()
    assert len(batches.all_queued(home)) == 1 and home.triggers("helper", "git").read_bytes() == before
    wait()
    clock.now += 60
    look_again = await planner_of(home, clock, schedule).step()
    assert len(batches.all_queued(home)) == 1 and look_again == BEGIN + 1.5 * DAY
    clock.now = look_again
    await planner_of(home, clock, schedule).step()
    assert len(batches.all_queued(home)) == 2


def dying(*_arguments: Any) -> None:
    raise KeyboardInterrupt


async def test_what_triggers_remember_is_written_only_when_it_changes(
    home: Home, clock: Clock, wait: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand wakes between two runs cost no sync."""
    loop = planner_of(home, clock, {"scheduled": {"cron": "@daily"}})
    wait()
    await loop.step()
    monkeypatch.setattr(trigger_facts, "remember", dying)
    for _ in range(10):
        clock.now += 60
        await loop.step()


async def test_a_run_that_finds_too_little_is_told_once_and_over(
    home: Home, clock: Clock, wait: Callable[..., None]
) -> None:
    """It says so where one looks, and forms nothing when the missing comes a minute later."""
    loop = planner_of(home, clock, {"scheduled": {"cron": "@daily", "time_zone": "UTC"}})
    wait(3)
    await loop.step()
    clock.now = BEGIN + DAY / 2
    (event,) = await told(loop)
    assert event[0] == "came_to_nothing" and "fewer than 7 questions" in event[1]["reason"]
    assert "the run of 2025-03-29 00:00 UTC came to nothing" in loop.waiting["helper/git"]
    assert await told(loop) == [] and "came to nothing" in loop.waiting["helper/git"]
    wait()
    assert await told(loop) == [] and "nothing" not in loop.waiting["helper/git"]
    clock.now += DAY
    assert [name for name, _ in await told(loop)] == ["batch_formed", "job_ordered"]


async def test_a_drop_is_told_once_and_trained_for_once(home: Home, clock: Clock, wait: Callable[..., None]) -> None:
    """With its numbers; when the metric rose again that is told too, and only then can it drop again."""
    said: list[Sample] = []
    asked: list[tuple[str, str, str, float]] = []

    def samples(*of: Any) -> list[Sample]:
        asked.append(of)
        return said

    drop = {"metric": "speed", "threshold": 0.7, "min_samples": 10, "window_hours": 1, "cooldown_hours": 0}
    loop = planner_of(home, clock, {"quality_drop": drop}, samples=samples)
    wait()
    assert await told(loop) == [] and asked[0] == ("helper", "git", "speed", BEGIN - 3600)
    said += [Sample(BEGIN, "speed", 0.5)] * 12
    names = [(name, facts) for name, facts in await told(loop) if name != "job_ordered"]
    assert names[0] == ("quality_dropped", {"persona": "helper", "domain": "git", "metric": "speed", "value": 0.5,
                                            "threshold": 0.7, "samples": 12})  # fmt: skip
    assert names[1][0] == "batch_formed" and names[1][1]["reason"].startswith("quality_drop: speed fell below 0.7")
    wait()
    restarted = planner_of(home, clock, {"quality_drop": drop}, samples=samples)
    assert await told(restarted) == [] and "was trained for" in restarted.waiting["helper/git"]
    said += [Sample(BEGIN, "speed", 1.0)] * 60
    assert [name for name, _ in await told(restarted)] == ["quality_recovered"]


async def test_a_drop_with_too_little_to_train_says_so(home: Home, clock: Clock, wait: Callable[..., None]) -> None:
    """It stays due, and is trained for when there is enough."""
    drop = {"min_samples": 1}
    loop = planner_of(home, clock, {"quality_drop": drop}, samples=lambda *_: [Sample(BEGIN, SATISFACTION, 0.0)])
    wait(3)
    assert [name for name, _ in await told(loop)] == ["quality_dropped", "came_to_nothing"]
    assert "; but fewer than 7 questions, too few to judge by" in loop.waiting["helper/git"]
    wait()
    assert [name for name, _ in await told(loop)] == ["batch_formed", "job_ordered"]


async def test_with_nothing_new_a_run_rebuilds(home: Home, clock: Clock, wait: Callable[..., None]) -> None:
    """Once a run, also over a restart; a rebuild that cannot be is said, and so is that nobody rebuilds."""
    schedule = {"scheduled": {"cron": "@daily", "time_zone": "UTC", "only_if_data": False}}
    wait(0)
    home.pending("helper", "git").mkdir(parents=True)
    ordered: list[tuple[str, str, str]] = []
    loop = planner_of(home, clock, schedule, rebuild=lambda *of: ordered.append(of))
    for _ in range(3):
        await loop.step()
        await planner_of(home, clock, schedule, rebuild=lambda *of: ordered.append(of)).step()
        clock.now += DAY
    assert [reason for *_, reason in ordered] == [
        f"scheduled: the run of 2025-03-{day} 00:00 UTC, with nothing new" for day in (29, 30)
    ]
    assert ordered[0][:2] == ("helper", "git")

    def refuses(*_of: str) -> None:
        raise NotFound("helper/git was never taught anything")

    loop.rebuild = refuses
    await loop.step()
    assert "came to nothing: helper/git was never taught anything" in loop.waiting["helper/git"]
    loop.rebuild, clock.now = None, clock.now + DAY
    await loop.step()
    assert "this daemon rebuilds nothing" in loop.waiting["helper/git"]


async def test_after_a_refusal_a_domain_rests_and_another_does_not(
    home: Home, clock: Clock, wait: Callable[..., None]
) -> None:
    """For the time that is set, from when the batch was set aside; by hand it can be started at once."""
    loop = planner_of(home, clock, {"threshold": {"min_examples": 10}, "refusal_cooldown_hours": 5})
    wait()
    await loop.step()
    (batch,) = batches.all_queued(home)
    batches.set_aside(home, batch, "worse")
    os.utime(home.set_aside("helper", "git") / batch.id / "reason.txt", (clock.now, clock.now))
    wait()
    wait(domain="maths")
    assert await loop.step() == BEGIN + 5 * 3600
    assert [batch.domain for batch in batches.all_queued(home)] == ["maths"]
    assert "a batch was set aside" in loop.waiting["helper/git"]
    clock.now = BEGIN + 5 * 3600
    await loop.step()
    assert [batch.domain for batch in batches.all_queued(home)] == ["maths", "git"]
    wait()
    assert orders.form(home, loop.config, "helper", "git", "by hand") is not None


async def test_each_domain_has_its_own_triggers(home: Home, clock: Clock, wait: Callable[..., None]) -> None:
    """What a persona and a domain of it set counts there, over what is set for everybody."""
    personas = {"helper": {"triggers": {"threshold": {"min_examples": 10}},
                           "domains": {"git": {"triggers": {"threshold": False}}}}}  # fmt: skip
    loop = planner_of(home, clock, {"threshold": {"min_examples": 99}}, personas=personas)
    wait()
    wait(domain="maths")
    await loop.step()
    assert [batch.domain for batch in batches.all_queued(home)] == ["maths"]
    assert loop.waiting["helper/git"] == "no trigger is set"

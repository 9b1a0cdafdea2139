"""When to train, with the time passed in."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genome.feedback import SATISFACTION, Sample
from genome.pending import Pending
from genome.schedules import next_run
from genome.trigger_facts import Facts, TriggerMemory
from genome.trigger_settings import QualityDrop, Scheduled, Threshold, Triggers
from genome.triggers import Plan, Turn, look

NOW = 1_000_000.0
HOUR = 3600.0
TRIGGERS = Triggers(threshold=Threshold(min_examples=5, max_wait_hours=10))
YEAR = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
DAYS = 365


def facts(examples: int, waited_hours: float = 0.0, weight: float | None = None, now: float = NOW) -> Facts:
    weighs = float(examples) if weight is None else weight
    return Facts(Pending("p", "d", examples, weighs, 0, now - waited_hours * HOUR if examples else None))


# threshold


def test_enough_examples_are_due_at_once() -> None:
    """And it says why."""
    plan = look(TRIGGERS, facts(5), NOW)
    assert plan.start and plan.reason == "threshold: 5 of 5 examples wait"


def test_too_few_wait_until_the_oldest_has_waited_long_enough() -> None:
    """The planner is told when to look again, and then it is due."""
    plan = look(TRIGGERS, facts(2, waited_hours=4), NOW)
    assert not plan.start and plan.look_again == NOW + 6 * HOUR
    assert look(TRIGGERS, facts(2, waited_hours=4), NOW + 6 * HOUR).start


def test_nothing_is_never_due() -> None:
    """Time alone does not train an empty buffer."""
    plan = look(TRIGGERS, facts(0), NOW)
    assert not plan.start and plan.look_again is None


def test_without_triggers_only_a_person_trains() -> None:
    """No trigger set: never due by itself, and it says so."""
    assert look(Triggers(threshold=None), facts(999), NOW).reason == "no trigger is set"


def test_a_silver_signal_counts_half() -> None:
    """The weight is compared, and the reason says how it comes about."""
    limit = Triggers(threshold=Threshold(min_examples=500))
    plan = look(limit, facts(825, weight=412.5), NOW)
    assert not plan.start and plan.reason == "threshold: 412.5 of 500 examples wait (825 signals, silver counts half)"
    assert look(limit, facts(825, weight=500.0), NOW).start
    assert look(limit, facts(5000, weight=sum([0.1] * 5000)), NOW).start


# scheduled


def schedule(cron: str = "0 3 * * *", zone: str = "Europe/Berlin", **more: object) -> Triggers:
    return Triggers.model_validate({"threshold": False, "scheduled": {"cron": cron, "time_zone": zone, **more}})


class Daemon:
    """What the planner does with plans, without a disk: it may be down, and is woken at the times it was told."""

    def __init__(self, triggers: Triggers) -> None:
        self.triggers, self.memory = triggers, TriggerMemory()
        self.formed: float | None = None
        self.trained: list[float] = []
        self.rebuilt: list[float] = []

    def look(self, now: float, since: float, examples: int = 9) -> Plan:
        waiting = replace(facts(examples, now=now), memory=self.memory, formed=self.formed, watched_since=since)
        plan = look(self.triggers, waiting, now)
        self.memory = plan.memory
        if plan.start and plan.decision.rebuild:
            self.memory = plan.after
            self.rebuilt.append(now)
        elif plan.start:
            self.formed = int(now * 1000) / 1000
            self.trained.append(now)
        return plan

    def run(self, begin: float, end: float, examples: int = 9) -> None:
        """Up from ``begin`` to ``end``: looks at once, and then at exactly the times it was told."""
        now: float | None = begin
        while now is not None and now < end:
            plan = self.look(now, begin, examples)
            if plan.start:
                plan = self.look(now, begin, examples)
                assert not plan.start, "what was answered is due again"
            assert plan.look_again is None or plan.look_again > now
            now = plan.look_again


def times(triggers: Triggers, begin: float, end: float) -> list[float]:
    assert triggers.scheduled is not None
    found, zone = [], ZoneInfo(triggers.scheduled.time_zone)
    while (begin := next_run(triggers.scheduled.cron, zone, begin)) < end:
        found.append(begin)
    return found


ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
CRONS = st.sampled_from(["30 2 * * *", "0 3 * * *", "15 1,2,14 * * *", "@weekly", "*/30 1-3 * * sun"])
TURNS = st.lists(st.floats(0.01, 30.0), min_size=2, max_size=24)
"""Days up, days down, days up, …"""


def phases(turns: list[float]) -> list[tuple[float, float]]:
    """(begin, end) of each time the daemon is up."""
    up, begin = [], YEAR + 0.5
    for index, days in enumerate(turns):
        end = min(begin + days * 86_400, YEAR + DAYS * 86_400)
        if index % 2 == 0 and end > begin:
            up.append((begin, end))
        begin = end
    return up


@settings(deadline=None, max_examples=60)
@given(CRONS, ZONES, TURNS)
def test_each_planned_time_is_answered_once(cron: str, zone: str, turns: list[float]) -> None:
    """Over changes of clocks and times the daemon is down: on time while it is up, and once for all it slept through,
    as soon as it is there."""
    triggers = schedule(cron, zone)
    daemon, up = Daemon(triggers), phases(turns)
    for begin, end in up:
        daemon.run(begin, end)
    expected = []
    for index, (begin, end) in enumerate(up):
        if index and times(triggers, up[index - 1][1] - 0.001, begin):
            expected.append(begin)
        expected += times(triggers, begin, end)
    assert daemon.trained == expected


@settings(deadline=None, max_examples=60)
@given(CRONS, ZONES, TURNS)
def test_missed_runs_are_skipped_where_that_is_wanted(cron: str, zone: str, turns: list[float]) -> None:
    """Then only what comes while the daemon is up is answered, and all of it."""
    triggers = schedule(cron, zone, missed="skip")
    daemon, up = Daemon(triggers), phases(turns)
    for begin, end in up:
        daemon.run(begin, end)
    assert daemon.trained == [run for begin, end in up for run in times(triggers, begin, end)]


def test_a_schedule_begins_when_it_is_first_seen() -> None:
    """No run before it was set is caught up on; nor when its expression changes."""
    daemon = Daemon(schedule())
    assert not daemon.look(YEAR, YEAR).start
    daemon.triggers = schedule("0 1 * * *")
    plan = daemon.look(YEAR + 86_400, YEAR)
    assert not plan.start and "next at 2025-01-03 01:00 CET" in plan.reason


def test_a_crash_after_the_batch_was_formed_trains_nothing_twice() -> None:
    """What was not yet remembered is read from the batch: it answered the run, whatever waits by now."""
    triggers = schedule(only_if_data=False)
    begun = TriggerMemory(schedule="0 3 * * * Europe/Berlin", looked_at=int(YEAR * 1000))
    run = times(triggers, YEAR, YEAR + 86_400)[0]
    due = look(triggers, replace(facts(9), memory=begun), run)
    assert due.start and due.memory == begun  # remembered before the act is nothing that it does
    for waiting in (0, 3):
        again = look(triggers, replace(facts(waiting), memory=begun, formed=run), run + 1)
        assert not again.start and again.memory.looked_at == int(run * 1000)


def test_a_run_that_finds_nothing_is_over() -> None:
    """What comes a minute later waits for the next one."""
    daemon = Daemon(schedule())
    daemon.look(YEAR, YEAR)
    assert "found nothing waiting" in daemon.look(run := times(daemon.triggers, YEAR, YEAR + 86_400)[0], YEAR, 0).reason
    assert not daemon.look(run + 60, YEAR).start and daemon.look(run + 86_400, YEAR).start


def test_a_run_with_nothing_new_may_rebuild() -> None:
    """Where data is not asked for: once a run, and by a batch where there is data."""
    daemon = Daemon(schedule(only_if_data=False))
    daemon.run(YEAR, YEAR + 3 * 86_400, examples=0)
    assert daemon.rebuilt == times(daemon.triggers, YEAR, YEAR + 3 * 86_400) and not daemon.trained


def test_a_clock_set_back_repeats_nothing_and_one_that_was_years_ahead_begins_anew() -> None:
    """Neither is a schedule lost to a wrong clock nor run twice by one that is set."""
    daemon = Daemon(schedule(only_if_data=False))
    daemon.run(YEAR, YEAR + 1.5 * 86_400, examples=0)
    run = daemon.rebuilt[-1]
    daemon.run(run - 1, run + 1, examples=0)
    assert daemon.rebuilt.count(run) == 1
    daemon.memory = daemon.memory.model_copy(update={"looked_at": int((YEAR + 9e8) * 1000)})
    daemon.run(YEAR + 2 * 86_400, YEAR + 4 * 86_400)
    assert len(daemon.trained) == 2


# quality_drop

DROP = QualityDrop(threshold=0.7, hysteresis=0.1, window_hours=24, min_samples=10, cooldown_hours=6)
WATCHING = Triggers(threshold=None, quality_drop=DROP)


def samples(*values: float, until: float = NOW, every: float = 60.0) -> list[Sample]:
    return [Sample(until - (len(values) - 1 - i) * every, SATISFACTION, value) for i, value in enumerate(values)]


def test_a_drop_is_due_and_says_the_numbers() -> None:
    """Mean, samples and line; and it stays due until a batch was formed."""
    seen = replace(facts(9), samples=samples(*[1.0] * 6, *[0.0] * 6))
    plan = look(WATCHING, seen, NOW)
    assert plan.start and plan.reason == "quality_drop: user_satisfaction fell below 0.7: user_satisfaction is 0.500 " \
        "over 12 samples"  # fmt: skip
    assert plan.turn is not None and plan.turn.dropped and plan.turn.value == 0.5 and plan.turn.samples == 12
    later = replace(seen, memory=plan.memory)
    assert look(WATCHING, later, NOW + 60).start and look(WATCHING, later, NOW + 60).turn is None
    assert not look(WATCHING, replace(later, formed=NOW), NOW + 60).start


def test_few_samples_conclude_nothing() -> None:
    """Nor do those of another metric, or older ones than the window."""
    plan = look(WATCHING, replace(facts(9), samples=samples(*[0.0] * 9)), NOW)
    assert not plan.start and "9 of 10 samples" in plan.reason
    others = [replace(sample, metric="speed") for sample in samples(*[0.0] * 20)]
    assert look(WATCHING, replace(facts(9), samples=others), NOW).turn is None
    assert look(WATCHING, replace(facts(9), samples=samples(*[0.0] * 20)), NOW + 25 * HOUR).turn is None


def test_a_drop_fires_once_until_the_metric_rose_by_the_hysteresis() -> None:
    """On a noisy series around the line: one drop for each time it went down for good, whatever the noise does."""
    chance, told, memory = random.Random(7), [], TriggerMemory()
    series: list[Sample] = []
    for index in range(3000):
        level = (0.95, 0.5, 0.72, 0.95, 0.4)[index // 600]
        series.append(Sample(NOW + index * 300, SATISFACTION, float(chance.random() < level)))
        plan = look(WATCHING, replace(facts(0), memory=memory, samples=series), series[-1].time)
        memory = plan.memory
        if plan.turn is not None:
            told.append((plan.turn.dropped, index // 600))
    assert told == [(True, 1), (False, 3), (True, 4)]


@pytest.mark.parametrize("another", [True, False], ids=["another metric", "switched off"])
def test_a_drop_ends_with_the_trigger_that_saw_it(another: bool) -> None:
    """It is told as over, once; of another metric nothing is known: neither that it dropped nor when."""
    seen = replace(facts(9), samples=samples(*[0.0] * 12))
    dropped = look(WATCHING, seen, NOW).memory
    assert (dropped.metric, dropped.recovered) == (SATISFACTION, False)
    drop = DROP.model_copy(update={"metric": "csat"}) if another else None
    changed = WATCHING.model_copy(update={"quality_drop": drop})
    bad = [replace(sample, metric="csat") for sample in seen.samples]
    plan = look(changed, replace(seen, memory=dropped, samples=bad), NOW + 60)
    assert plan.turn == Turn(False, SATISFACTION) and plan.memory.recovered and plan.look_again == NOW + 60
    again = look(changed, replace(seen, memory=plan.memory, samples=bad), NOW + 60)
    assert again.turn == (Turn(True, "csat", 0.0, DROP.threshold, 12) if another else None)


def test_a_cool_down_is_of_one_metric() -> None:
    """That of another metric holds nothing back."""
    seen = replace(facts(9), samples=samples(*[0.0] * 12))
    just = TriggerMemory(metric="csat", dropped=int((NOW - 1) * 1000))
    assert look(WATCHING, replace(seen, memory=just), NOW).turn is not None
    assert look(WATCHING, replace(seen, memory=just.model_copy(update={"metric": SATISFACTION})), NOW).turn is None


def test_a_second_drop_waits_for_the_cool_down() -> None:
    """Down, up and down again within it: looked at again at its end, and due then."""
    dropped = TriggerMemory(dropped=int((NOW - HOUR) * 1000), recovered=True)
    seen = replace(facts(9), samples=samples(*[0.0] * 12), memory=dropped)
    plan = look(WATCHING, seen, NOW)
    assert not plan.start and "too soon" in plan.reason and plan.look_again == NOW + 5 * HOUR
    assert look(WATCHING, seen, NOW + 5 * HOUR - 0.001).turn is None
    assert look(WATCHING, seen, NOW + 5 * HOUR).turn is not None


def test_time_alone_can_make_a_drop_and_end_one() -> None:
    """As good samples grow too old the mean falls: looked at again at exactly that moment, and not before."""
    for good_first in (True, False):
        values = [1.0] * 20 + [0.0] * 8 if good_first else [0.0] * 20 + [1.0] * 20
        memory = TriggerMemory(dropped=None if good_first else 1, recovered=good_first)
        seen = replace(facts(0), samples=samples(*values), memory=memory)
        plan = look(WATCHING, seen, NOW)
        assert plan.turn is None and plan.look_again is not None
        assert look(WATCHING, seen, plan.look_again - 0.001).turn is None
        turn = look(WATCHING, seen, plan.look_again).turn
        assert turn is not None and turn.dropped is good_first


def test_samples_of_one_moment_grow_too_old_together() -> None:
    """A mean that only half of them would give never is."""
    old = samples(*[1.0] * 3, *[0.0] * 3, until=NOW - HOUR, every=0.0)
    young = samples(*[1.0] * 16, *[0.0] * 4, every=0.0)
    assert look(WATCHING, replace(facts(0), samples=[*old, *young]), NOW).look_again is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 20_000)), max_size=60), st.integers(0, 30), st.booleans())
def test_the_next_look_is_never_too_late(given_samples: list[tuple[float, float]], newest: int, armed: bool) -> None:
    """Whatever the values: between now and the next look nothing turns; at it something does."""
    drop = DROP.model_copy(update={"window_samples": newest and newest + 10, "cooldown_hours": 0.0})
    triggers = Triggers(threshold=None, quality_drop=drop)
    found = sorted((Sample(NOW - age, SATISFACTION, value) for value, age in given_samples), key=lambda each: each.time)
    seen = replace(facts(0), samples=found, memory=TriggerMemory(recovered=armed, dropped=None if armed else 1))
    plan = look(triggers, seen, NOW)
    seen = replace(seen, memory=plan.memory)
    moments = sorted(sample.time + 24 * HOUR for sample in found)
    for moment in moments:
        if plan.look_again is None or moment < plan.look_again:
            assert look(triggers, seen, moment).turn is None
    if plan.look_again is not None:
        assert look(triggers, seen, plan.look_again).turn is not None


# together


def test_the_first_that_is_due_wins_and_says_why() -> None:
    """In the order threshold, schedule, drop; what is missing is said of all."""
    both = Triggers(threshold=Threshold(min_examples=5), quality_drop=DROP)
    seen = replace(facts(4), samples=samples(*[0.0] * 12))
    assert look(both, seen, NOW).reason.startswith("quality_drop")
    assert look(both, replace(seen, pending=facts(5).pending), NOW).reason.startswith("threshold")
    waiting = look(both, replace(facts(4), samples=()), NOW)
    assert waiting.reason == "threshold: 4 of 5 examples wait; quality_drop: 0 of 10 samples of user_satisfaction, " \
        "0.7 is enough"  # fmt: skip


def test_what_is_due_waits_for_the_end_of_the_quiet_hours() -> None:
    """It is looked at again when they end, and starts then."""
    quiet = TRIGGERS.model_copy(update={"quiet_hours": ("22:00-07:00",), "time_zone": "Europe/Berlin"})
    night = datetime(2025, 6, 1, 23, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    plan = look(quiet, facts(5, now=night), night)
    assert plan.decision.due and not plan.start and plan.look_again == night + 8 * HOUR
    assert "quiet hours until 2025-06-02 07:00 CEST" in plan.reason
    assert look(quiet, facts(5), night + 8 * HOUR).start


def test_a_planned_time_in_quiet_hours_comes_at_their_end() -> None:
    """It is not lost, and comes once."""
    triggers = schedule().model_copy(update={"quiet_hours": ("22:00-07:00",), "time_zone": "Europe/Berlin"})
    daemon = Daemon(triggers)
    daemon.run(YEAR, YEAR + 3 * 86_400)
    assert daemon.trained == [run + 4 * HOUR for run in times(triggers, YEAR, YEAR + 3 * 86_400)]


def test_after_a_refusal_nothing_starts_for_a_while() -> None:
    """Then quiet hours may go on from there; a refusal of long ago holds nothing back."""
    morning = datetime(2025, 6, 1, 12, tzinfo=UTC).timestamp()
    changed = {"refusal_cooldown_hours": 12.0, "quiet_hours": ("22:00-07:00",), "time_zone": "UTC"}
    cooling = TRIGGERS.model_copy(update=changed)
    plan = look(cooling, replace(facts(5), refused=morning), morning + HOUR)
    assert not plan.start and "set aside" in plan.reason and plan.look_again == morning + 19 * HOUR
    assert look(cooling, replace(facts(5), refused=morning), morning + 19 * HOUR).start
    assert look(TRIGGERS, replace(facts(5), refused=morning), morning).start


@pytest.mark.parametrize("examples", [0, 5])
def test_a_drop_is_noticed_also_while_nothing_may_start(examples: int) -> None:
    """Quiet hours hold training back, not the telling."""
    quiet = WATCHING.model_copy(update={"quiet_hours": ("00:00-23:59",), "time_zone": "UTC"})
    plan = look(quiet, replace(facts(examples), samples=samples(*[0.0] * 12)), NOW)
    assert plan.turn is not None and plan.decision.due and not plan.start


def test_a_scheduled_zone_is_everybodys_unless_it_has_its_own() -> None:
    """One time zone is said once."""
    given = {"time_zone": "Europe/Berlin", "scheduled": {"cron": "@daily"}}
    assert Triggers.model_validate(given).scheduled == Scheduled(cron="@daily", time_zone="Europe/Berlin")

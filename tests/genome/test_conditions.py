"""What is told of a condition: once that it began, once that it ended."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from fixed import NOW, ROOT

from genome import alerts, conditions
from genome.alerts import Alert, OpenAlerts, Told
from genome.config import Alerts, parse
from genome.errors import Damaged, InvalidConfig, NotFound
from genome.layout import Home

SETTINGS = Alerts(patience_seconds=60, settle_minutes=10)
DOMAIN = {"persona": "helper", "domain": "git"}
REFUSED = ("batch_set_aside", {**DOMAIN, "batch": "batch-2026-11-20-001", "reason": "nothing was learned"})
PROMOTED = ("promoted", {**DOMAIN, "adapter": "helper/git-v1.1", "share": 1.0})
GRADUATED = ("graduated", {**DOMAIN, "adapter": "helper/git-v1.1"})
SUSPECTED = {**DOMAIN, "adapter": "helper/git-v1.1"}
MINUTE = 60.0

Sent = list[tuple[str, str]]


def folded(*events: tuple[float, str, dict[str, Any]]) -> tuple[OpenAlerts, Sent]:
    """What is open after events at so many seconds from now, and (condition, status) of what was sent."""
    state, sent = OpenAlerts(), []
    for after, name, facts in events:
        state, new = alerts.fold(state, Told(name, facts, NOW + after), SETTINGS)
        sent += new
    return state, [(alert.condition, alert.status) for alert in sent]


def later(state: OpenAlerts, seconds: float) -> tuple[OpenAlerts, Sent]:
    state, sent = alerts.ripe(state, NOW + seconds)
    return state, [(alert.condition, alert.status) for alert in sent]


def test_one_alert_a_condition() -> None:
    """However often it is told; what is shown has the first time and the latest words."""
    again = {**REFUSED[1], "batch": "batch-2026-11-20-002"}
    state, sent = folded((0, *REFUSED), (5, "batch_set_aside", again))
    assert sent == [("refused/helper/git", "raised")]
    (alert,) = state.open
    assert alert.since == int(NOW * 1000) and "batch-2026-11-20-002" in alert.summary
    assert alert.severity == "warning" and alert.resolved is None


def test_conditions_of_other_domains_are_others() -> None:
    """Each has an alert and an end of its own."""
    other = {**REFUSED[1], "domain": "gh"}
    state, sent = folded((0, *REFUSED), (1, "batch_set_aside", other), (2, *PROMOTED))
    both = [("refused/helper/git", "raised"), ("refused/helper/gh", "raised")]
    assert sent == [*both, ("refused/helper/git", "resolved")]
    assert [alert.condition for alert in state.open] == ["refused/helper/gh"]


def test_an_end_is_told_once() -> None:
    """A second promotion has nothing to end; the same condition later is a new alert."""
    state, sent = folded((0, *REFUSED), (1, *PROMOTED), (2, *PROMOTED))
    assert sent == [("refused/helper/git", "raised"), ("refused/helper/git", "resolved")] and state == OpenAlerts()
    assert folded((0, *REFUSED), (1, *PROMOTED), (2, *REFUSED))[1][-1] == ("refused/helper/git", "raised")


FAILS = ("loop_failed", {"loop": "gate", "error": "no worker", "failures": 3, "retry_seconds": 2.0})
RECOVERS = ("recovered", {"loop": "gate"})


def test_what_comes_and_goes_is_one_alert() -> None:
    """A loop that fails and recovers all day is told once, and its end when it held for the time that is set."""
    flapping = [(MINUTE * number, *event) for number, event in enumerate([FAILS, RECOVERS] * 20)]
    state, sent = folded(*flapping)
    assert sent == [("loop/gate", "raised")]
    assert later(state, MINUTE * 48.9) == (state, [])
    assert alerts.look_again(state) == NOW + MINUTE * 49
    assert later(state, MINUTE * 49) == (OpenAlerts(), [("loop/gate", "resolved")])


def test_a_loop_that_fails_now_and_then_is_no_alert() -> None:
    """Two failures in a row are what trying again is for."""
    assert folded((0, "loop_failed", {**FAILS[1], "failures": 2})) == (OpenAlerts(), [])


def test_a_restart_ends_what_it_cannot_know_only_after_a_while() -> None:
    """A loop that fails in the next daemon too is the same alert; one that does not is over once that has held."""
    state, sent = folded((0, *FAILS), (100, "started", {}), (101, "worker_serving", {}), (110, *FAILS))
    assert sent == [("loop/gate", "raised")] and later(state, 9999) == (state, [])
    state, _ = folded((0, *FAILS), (100, "started", {}), (101, "worker_serving", {}))
    assert later(state, 9999)[1] == [("loop/gate", "resolved")]


def test_a_worker_is_missed_after_a_while() -> None:
    """Neither a start nor a short absence is told; a long one is."""
    assert folded((0, "started", {}), (30, "worker_serving", {})) == (OpenAlerts(), [])
    state, sent = folded((0, "started", {}), (30, "worker_serving", {}), (40, "worker_not_serving", {}))
    assert sent == [] and state.open == () and alerts.look_again(state) == NOW + 100
    state, sent = later(state, 100)
    assert sent == [("worker", "raised")] and state.open[0].severity == "critical"
    assert state.open[0].since == int((NOW + 40) * 1000)


EVENTS: dict[str, tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]] = {
    "training-failed/helper/git": ([("job_failed", DOMAIN)], [("trained", DOMAIN), PROMOTED, GRADUATED]),
    "refused/helper/git": ([REFUSED], [PROMOTED, GRADUATED]),
    "regression/helper/git": ([("rolled_back", {**DOMAIN, "by": "feedback"})], [PROMOTED, GRADUATED]),
    "suspected/helper/git-v1.1": ([("regression_suspected", SUSPECTED)], [("suspicion_ended", SUSPECTED)]),
    "quality/helper/git/user_satisfaction": (
        [("quality_dropped", {**DOMAIN, "metric": "user_satisfaction", "value": 0.4})],
        [("quality_recovered", {**DOMAIN, "metric": "user_satisfaction"})],
    ),
    "poison/helper/git/b1": (
        [("poison_found", {**DOMAIN, "batch": "b1", "signals": ["s1"]})], [PROMOTED, GRADUATED],
    ),
    "retraction/helper/git": ([("retracted_served", {**DOMAIN, "adapter": "helper/git-v1.0"})], [PROMOTED]),
    "memory/helper/git": (
        [("training_waits", {**DOMAIN, "job": "job-1", "reason": "waits for memory"})],
        [("training_started", DOMAIN), ("training_wait_ended", DOMAIN), ("job_failed", DOMAIN), ("started", {})],
    ),
    "loop/gate": ([FAILS], [RECOVERS, ("started", {})]),
    "intake": ([("intake_stopped", {"reason": "full"})], [("intake_resumed", {}), ("started", {})]),
    "worker": ([("worker_not_serving", {}), ("started", {})], [("worker_serving", {})]),
}  # fmt: skip


@pytest.mark.parametrize("condition", EVENTS)
def test_every_kind_is_raised_and_resolved(condition: str) -> None:
    """By each event that the table names."""
    raising, resolving = EVENTS[condition]
    for begins, ends in itertools.product(raising, resolving):
        state, sent = alerts.fold(OpenAlerts(), Told(*begins, NOW), SETTINGS)
        state, late = alerts.ripe(state, NOW + 60)
        (alert,) = (alert for alert in (*sent, *late) if alert.condition == condition)
        kind = next(kind for kind in conditions.KINDS if kind.name == alert.kind)
        assert (alert.severity, alert.status) == (kind.severity, "raised")
        state, sent = alerts.fold(state, Told(*ends, NOW + 70), SETTINGS)
        state, late = alerts.ripe(state, NOW + 700)
        assert (condition, "resolved") in [(alert.condition, alert.status) for alert in (*sent, *late)]


def test_no_kind_is_untried() -> None:
    """The events above raise every kind of the table."""
    assert {condition.partition("/")[0] for condition in EVENTS} == {kind.name for kind in conditions.KINDS}
    assert len({kind.message_id for kind in conditions.KINDS}) == len(conditions.KINDS)


def test_every_event_of_the_table_is_told() -> None:
    """By some module of the daemon: a condition that nobody raises or ends would look like a promise."""
    said = {path: path.read_text() for path in sorted((ROOT / "daemon").rglob("*.py"))}
    assert [event for event in conditions.EVENTS if not any(f'"{event}"' in text for text in said.values())] == []


def test_what_does_not_serve_everybody_ends_nothing() -> None:
    """A candidate that is judged good may still be dismissed; a canary leaves most sessions what they had."""
    rolled_back = ("rolled_back", {**DOMAIN, "by": "feedback"})
    canary = ("promoted", {**PROMOTED[1], "share": 0.1})
    _, sent = folded((0, *rolled_back), (1, "judged", {**DOMAIN, "promote": True}), (2, *canary))
    assert sent == [("regression/helper/git", "raised")]


def test_a_suspicion_is_of_one_version() -> None:
    """Another version of its domain that ends changes nothing; the summary says why it was left."""
    other = {**SUSPECTED, "adapter": "helper/git-v1.0"}
    why = {**SUSPECTED, "kept_because": "helper is pinned", "reason": "worse"}
    state, sent = folded((0, "regression_suspected", why), (1, "suspicion_ended", other), (2, "rolled_back", other))
    assert sent == [("suspected/helper/git-v1.1", "raised")]
    assert state.open[0].summary == "helper/git-v1.1 should no longer serve, and was left to: helper is pinned; worse"


def test_a_loop_that_waits_for_the_worker_is_no_alert_of_its_own() -> None:
    """The worker's condition tells that, with its patience; however often the loop tried."""
    assert folded((0, "loop_failed", {**FAILS[1], "failures": 99, "waits_for": "worker"})) == (OpenAlerts(), [])


def test_only_what_is_said_counts() -> None:
    """A rollback by a person, a refusal of one try and a promotion of another persona change nothing."""
    by_hand, other = {**DOMAIN, "by": "cli"}, {**PROMOTED[1], "persona": "other"}
    assert folded((0, "rolled_back", by_hand), (1, "judged", {**DOMAIN, "promote": False})) == (OpenAlerts(), [])
    assert folded((0, *REFUSED), (1, "promoted", other))[1] == [("refused/helper/git", "raised")]


def test_an_event_without_its_facts_is_told_all_the_same() -> None:
    """What is missing reads ?, and facts of any kind and length become what people can read."""
    state, sent = folded((0, "poison_found", {"persona": "helper", "signals": [object()] * 100, "why": float("nan")}))
    assert sent == [("poison/helper/?/?", "raised")]
    signals = state.open[0].facts["signals"]
    assert state.open[0].summary.endswith("and 80 more")
    assert len(signals) == alerts.MOST_ITEMS + 1 and signals[-1] == "… and 80 more"
    assert OpenAlerts.from_bytes(state.to_bytes()) == state


def test_resolved_by_hand() -> None:
    """Told at once; what is not open cannot be ended."""
    state, _ = folded((0, *FAILS), (1, *REFUSED))
    state, sent = alerts.resolve(state, "loop/gate", NOW + 5)
    assert [(alert.condition, alert.resolved) for alert in sent] == [("loop/gate", int((NOW + 5) * 1000))]
    assert [alert.condition for alert in state.open] == ["refused/helper/git"]
    with pytest.raises(NotFound, match="loop/gate"):
        alerts.resolve(state, "loop/gate", NOW)


def alert(number: int, resolved: int | None = None) -> Alert:
    return Alert(condition=f"loop/{number}", severity="critical", summary="", facts={}, since=1, resolved=resolved)


def test_every_message_is_owed_to_every_sink_in_order() -> None:
    """One that took it is owed the next; the other is still owed the first."""
    state = alerts.owe(OpenAlerts(), [alert(1), alert(1, resolved=2)], ("log", "webhook"), NOW)
    first, second = state.owed
    assert first.id != second.id and json.loads(first.body())["status"] == "raised"
    state = alerts.taken(state, first.id, "log")
    assert alerts.first_owed(state, "log") == second
    found = alerts.first_owed(state, "webhook")
    assert found is not None and found.id == first.id and found.owed == ("webhook",)
    state = alerts.only(state, {"log"})
    assert [(delivery.id, delivery.owed) for delivery in state.owed] == [(second.id, ("log",))]
    assert alerts.taken(state, second.id, "log").owed == ()


def test_pauses_grow_and_are_spread() -> None:
    """Twice as long after each failure, up to the longest; a draw takes off up to a half."""
    assert [alerts.pause(attempts, 0.5, 60.0, 0.0) for attempts in (1, 2, 3, 8, 10_000)] == [0.5, 1, 2, 60, 60]
    assert alerts.pause(3, 0.5, 60.0, 1.0) == 1.0


def test_a_record_that_cannot_be_read_is_kept(home: Home) -> None:
    """It is moved aside once, and alerts go on without it."""
    home.alerts.mkdir()
    home.open_alerts.write_text("{")
    with pytest.raises(Damaged, match=r"open\.json"):
        alerts.read(home)
    assert alerts.read(home) == OpenAlerts() and len(list(home.alerts.iterdir())) == 2


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "host/path", "http://host:0/", "http://host:99999/"])
def test_a_webhook_is_an_address(url: str) -> None:
    """What cannot be posted to is refused where it stands."""
    text = 'base = "x"\n[alerts]\nwebhook_url = "URL"\n'
    with pytest.raises(InvalidConfig, match=r"alerts\.webhook_url"):
        parse(text.replace("URL", url), Path("genome.toml"))
    assert parse(text.replace("URL", "https://host/x"), Path("genome.toml")).alerts.webhook_url == "https://host/x"

"""Promise 7 by itself: what feedback finds worse goes back, with its batch, and nothing else does."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from failing_os import failing
from whole_home import turn

from daemon import alerts as loops
from daemon import monitor
from daemon.events import Alarm, Announcer
from daemon.monitor import Monitor
from daemon.supervisor import recover
from genome import alerts, batches, fsck, promotions, registry
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.layout import Home
from genome.lines import from_signal
from genome.signals import Defaults, from_object

OLD, NEW = "helper/git-v1.0", "helper/git-v1.1"
HOUR = 3600.0


class Told(Announcer):
    """Remembers the events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, Any]]] = []

    def tell(self, name: str, **facts: Any) -> None:
        self.events.append((name, facts))


def loop(home: Home, told: Announcer, **settings: Any) -> Monitor:
    return Monitor(home, Config.model_validate({"base": "x", **settings}), told, Alarm())


def say(home: Home, now: float, **replies: tuple[str, int, int]) -> None:
    """Feedback of so many right and wrong replies of some versions, spread evenly."""
    lines: list[dict[str, Any]] = []
    for version, right, wrong in replies.values():
        places = [(number / right, "positive") for number in range(right)]
        places += [(number / wrong, "mistake") for number in range(wrong)]
        lines += [
            {"type": kind, "input": f"{version} {now} {number}", "wrongOutput": "w", "adapter": {"id": version}}
            for number, (_, kind) in enumerate(sorted(places))
        ]
    made = [from_signal(from_object(line, Defaults(int(now * 1000), "helper", "git"))) for line in lines]
    Buffer(home, Intake()).accept(made, now)


@pytest.fixture
def served(home: Home, signal: Callable[..., Any]) -> Home:
    """Two promoted versions of one domain: the older had good feedback before the newer came, an hour ago."""
    began = time.time() - HOUR
    turn(home, [signal(number) for number in range(12)], True, began - 2 * HOUR)
    say(home, began - HOUR, old=(OLD, 180, 20))
    turn(home, [signal(20 + number) for number in range(12)], True, began)
    return home


def stack(home: Home) -> list[str]:
    return [entry.adapter for entry in registry.stack_of(home, "helper")]


async def test_a_worse_version_is_withdrawn_and_its_batch_with_it(served: Home) -> None:
    """One record with reason and numbers, one event; the batch is no longer trained or replayed; fsck agrees."""
    told = Told()
    watching = loop(served, told)
    await watching.step()
    assert told.events == [] and stack(served) == [NEW]
    say(served, time.time(), new=(NEW, 60, 60))
    await watching.step()
    assert stack(served) == [OLD] and watching.deployer.event.is_set()
    ((name, facts),) = told.events
    assert (name, facts["adapter"], facts["to"], facts["by"]) == ("rolled_back", NEW, [OLD], "feedback")
    record = registry.current(served, "helper")
    assert record is not None and record.quarantined == (NEW,) and record.numbers["new"] == 0.5
    assert [len(find(served, "helper", "git")) for find in (batches.archived, batches.set_aside_batches)] == [1, 1]
    assert fsck.check(served).problems == ()
    await watching.step()
    await loop(served, told).step()
    assert len(told.events) == 1 and len(registry.history(served, "helper")) == 3


async def test_a_version_as_good_stays(served: Home) -> None:
    """However often the loop looks; its standing says how it compares."""
    told = Told()
    watching = loop(served, told)
    for minute in range(10):
        say(served, time.time() + minute, new=(NEW, 18, 2))
        assert await watching.step() is None
    assert told.events == [] and stack(served) == [NEW]
    assert "0.900 (200 samples) against helper/git-v1.0 0.900 (200 samples)" in watching.standing[NEW]


@pytest.mark.parametrize("why", ["pinned", "switched off", "its predecessor is gone"])
async def test_where_it_may_not_act_it_says_so_once(served: Home, why: str) -> None:
    """The version serves on, and a person is told."""
    told = Told()
    if why == "pinned":
        registry.pin(served, "helper", time.time(), "exam week")
    if why == "its predecessor is gone":
        (served.adapter(OLD) / "manifest.json").unlink()
    settings = {"feedback": {"automatic_rollback": False}} if why == "switched off" else {}
    watching = loop(served, told, **settings)
    say(served, time.time(), new=(NEW, 60, 60))
    for _ in range(3):
        await watching.step()
    assert [name for name, _ in told.events] == ["regression_suspected"] and stack(served) == [NEW]


async def test_the_batch_follows_after_a_crash(served: Home) -> None:
    """Killed between the record and the batch, the next start does the rest."""
    registry.withdraw(served, NEW, time.time(), "worse")
    assert len(batches.archived(served, "helper", "git")) == 2
    await loop(served, Told()).step()
    assert [len(find(served, "helper", "git")) for find in (batches.archived, batches.set_aside_batches)] == [1, 1]


@pytest.fixture
def canary(served: Home, signal: Callable[..., Any]) -> Callable[[float], Home]:
    """A third version, as a canary that began so many hours ago."""

    def begin(hours_ago: float) -> Home:
        from whole_home import fill, ordered, trained

        now = time.time() - hours_ago * HOUR
        job = ordered(served, fill(served, [signal(40 + number) for number in range(10)], now), now)
        registry.promote(served, trained(served, job, now), now, "better", job.id, share=0.2)
        return served

    return begin


async def test_a_canary_that_is_worse_goes_back(canary: Callable[[float], Home]) -> None:
    """Also where versions that everybody gets are left alone: to find that out is what it is for."""
    home, told = canary(1), Told()
    watching = loop(home, told, feedback={"automatic_rollback": False})
    for step in range(20):
        say(home, time.time() + step, new=("helper/git-v1.2", 2, 8), old=(NEW, 9, 1))
    await watching.step()
    assert [name for name, _ in told.events] == ["rolled_back"] and stack(home) == [NEW]
    assert registry.canary(home, "helper") is None
    assert promotions.quarantined(registry.history(home, "helper")) == {"helper/git-v1.2"}


async def test_a_canary_ends_in_time(canary: Callable[[float], Home]) -> None:
    """The loop sleeps until then; to all without harm, or back where the config says so."""
    home, told = canary(71), Told()
    look_again = await loop(home, told).step()
    assert look_again is not None and abs(look_again - time.time() - HOUR) < 60 and told.events == []
    back = loop(home, told, canary={"max_hours": 70, "at_last": "roll_back"})
    await back.step()
    ((name, facts),) = told.events
    assert stack(home) == [NEW] and (name, facts["adapter"]) == ("canary_ended", "helper/git-v1.2")
    assert promotions.quarantined(registry.history(home, "helper")) == frozenset(), "nothing was shown of it"


async def test_a_canary_graduates(canary: Callable[[float], Home]) -> None:
    """After its time, with nothing against it; the record says why and by which numbers."""
    home, told = canary(73), Told()
    say(home, time.time(), new=("helper/git-v1.2", 9, 1), old=(NEW, 9, 1))
    assert await loop(home, told).step() is None
    assert [name for name, _ in told.events] == ["graduated"] and stack(home) == ["helper/git-v1.2"]
    record = registry.current(home, "helper")
    assert record is not None and record.by == "feedback" and "in 72 hours" in record.reason
    assert record.numbers["new_samples"] == 10


async def test_a_canary_that_cannot_go_back_is_told(canary: Callable[[float], Home]) -> None:
    """Its time is over and what the others get was pruned: it stays one, and somebody hears of it, once."""
    home, told = canary(71), Told()
    (home.adapter(NEW) / "manifest.json").unlink()
    back = loop(home, told, canary={"max_hours": 70, "at_last": "roll_back"})
    for _ in range(2):
        await back.step()
    ((name, facts),) = told.events
    assert (name, facts["adapter"]) == ("regression_suspected", "helper/git-v1.2")
    assert "in 70 hours" in facts["reason"] and f"{NEW} is not there" in facts["kept_because"]
    assert registry.canary(home, "helper") is not None


async def test_what_was_left_to_serve_is_told_again_when_it_does_not(served: Home) -> None:
    """A rollback by hand ends the alert, also where the daemon was down meanwhile; a restart tells nothing twice."""
    registry.pin(served, "helper", time.time(), "exam week")
    say(served, time.time(), new=(NEW, 60, 60))

    def started() -> tuple[Monitor, loops.Alerts]:
        told = Announcer()
        kept = loops.compose(served, Config.model_validate({"base": "x", "alerts": {"journal": "off"}}), told, {})
        return loop(served, told), kept

    for _ in range(2):
        watching, kept = started()
        await watching.step()
        await kept.step()
        assert [alert.condition for alert in alerts.read(served).open] == [f"suspected/{NEW}"]
        assert len(alerts.read(served).owed) == 1
    registry.roll_back(served, "helper", time.time(), "by hand", by="me")
    watching, kept = started()
    with watching.announcer.watch() as events:
        await watching.step()
        event = await anext(aiter(events))
    await kept.step()
    assert event.name == "suspicion_ended" and event.facts == {"persona": "helper", "domain": "git", "adapter": NEW}
    assert alerts.read(served).open == () and alerts.read(served).owed[-1].alert.status == "resolved"


async def test_a_withdrawal_is_told_whatever_fails_after_it(served: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the batch is to follow: the predecessor serves, is deployed, and people hear of it."""
    told = Told()
    watching = loop(served, told)
    say(served, time.time(), new=(NEW, 60, 60))

    def full(*_of: Any) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr(batches, "withdraw", full)
        await watching.step()
    assert stack(served) == [OLD] and watching.deployer.event.is_set()
    assert [name for name, _ in told.events] == ["rolled_back"]
    await watching.step()
    assert len(told.events) == 1 and len(batches.set_aside_batches(served, "helper", "git")) == 1


async def test_a_damaged_domain_holds_up_no_other(served: Home) -> None:
    """A segment that cannot be unpacked is named where one looks for the standing; others are judged."""
    archived = next(served.archive("helper", "git").glob("batch-*"))
    segment = next(archived.glob("*.jsonl"))
    segment.with_name(f"{segment.name}.zst").write_bytes(b"no frame")
    segment.unlink()
    watching = loop(served, Told())
    await watching.step()
    assert "cannot be unpacked" in watching.standing["helper"]


def test_metrics_are_reported_and_shown(
    served: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the daemon down a value lies in the inbox; shown are means by version, and what follows of them."""
    from daemon import cli

    served.config.write_text('base = "x"\n')

    def genome(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["genome", *arguments, "--home", str(served.root)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    of = ("--persona", "helper", "--domain", "git", "--metric", "csat")
    for value in ("0.5", "0.5"):
        assert genome("metric", "report", *of, "--value", value, "--adapter", NEW)[0] == 0
    assert genome("metric", "report", *of, "--value", "nan")[0] == 3
    assert genome("metric", "report", *of, "--value", "1", "--adapter", "nobody")[0] == 3
    lines = [json.loads(path.read_text()) for path in served.inbox.glob("*.jsonl")]
    found = [from_signal(from_object(line, Defaults(5))) for line in lines]
    assert Buffer(served, Intake()).accept(found, time.time()).accepted == 2
    code, shown = genome("metric", "show", *of, "--json")
    answer = json.loads(shown)
    assert code == 0 and answer["versions"] == [
        {"persona": "helper", "domain": "git", "metric": "csat", "version": NEW, "samples": 2, "mean": 0.5}
    ]
    assert [(trial["version"], trial["predecessor"], trial["act"]) for trial in answer["trials"]] == [
        (NEW, OLD, "wait")
    ]
    assert "against helper/git-v1.0 0.900 (200 samples)" in genome("metric", "show")[1]


def test_samples_are_wanted_for_twice_the_days() -> None:
    """So long before a version began, and so long after."""
    assert monitor.span_days(Config.model_validate({"base": "x", "feedback": {"days": 10}})) == 20


def take_back(home: Home) -> None:
    """What the loop does, once it knows."""
    newest = registry.current(home, "helper")
    if newest is not None and NEW in newest.adapters:
        registry.withdraw(home, NEW, time.time(), "worse")
    loop(home, Told())._judge_all()


def test_a_withdrawal_goes_on_from_wherever_it_broke(served: Home, tmp_path: Path) -> None:
    """Each call that changes the disk fails in its turn; the next attempt ends what was begun, and no signal is lost.

    Its batch is set aside whole, the other one stays archived, and nothing is withdrawn twice.
    """
    before = fsck.check(served).counts
    calls = 0
    while True:
        calls += 1
        home = Home(tmp_path / f"copy-{calls}")
        shutil.copytree(served.root, home.root)
        with failing(fail_at=calls, error=OSError(5, "input/output error")) as standing, suppress(OSError):
            take_back(home)
        recover(home)
        take_back(home)
        report = fsck.check(home)
        assert report.problems == (), calls
        assert (report.counts["accepted"], report.counts["evidence"]) == (before["accepted"], before["evidence"])
        assert (report.counts["archived"], report.counts["set aside"]) == (12, 12)
        assert [record.quarantined for record in registry.history(home, "helper")] == [(), (), (NEW,)]
        if standing.count < calls:
            break  # nothing was left to fail
    assert calls > 10

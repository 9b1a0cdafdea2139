"""What follows from samples: pure decisions about versions that serve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fixed import NOW

from genome import trials
from genome.config import Config
from genome.feedback import DAY, SATISFACTION, Sample
from genome.promotions import Kind, Promotion, StackEntry
from genome.trials import Judgement, Trial

OLD, NEW = "helper/git-v1.0", "helper/git-v1.1"
CONFIG = Config(base="x")
RUNS = 300


def record(number: int, *names: str, kind: Kind = "promote", share: float = 1.0, quarantined: str = "") -> Promotion:
    """Each a day after the one before, which it builds on."""
    return Promotion(
        number=number, persona="helper", kind=kind, stack=tuple(StackEntry(adapter=name, digest="") for name in names),
        builds_on=number - 1, reason="", share=share, quarantined=(quarantined,) if quarantined else (),
        created=int((NOW + number * DAY) * 1000),
    )  # fmt: skip


def trial(canary: bool = False, predecessor: str | None = OLD) -> Trial:
    return Trial(NEW, "git", predecessor, NOW, canary, trials=2 if canary else 1)


def said(version: str, values: Sequence[float], begin: float = 0.0, metric: str = SATISFACTION) -> list[Sample]:
    """One a minute, from ``begin`` days after the trial began."""
    times = [NOW + begin * DAY + 60 * minute for minute in range(len(values))]
    return [Sample(time, metric, value, version, time) for time, value in zip(times, values, strict=True)]


def drawn(quality: float, number: int, seed: int) -> list[float]:
    return (np.random.default_rng(seed).random(number) < quality).astype(float).tolist()


def judged(samples: list[Sample], of: Trial | None = None, config: Config = CONFIG, hours: float = 1) -> Judgement:
    in_order = sorted(samples, key=lambda sample: sample.received)
    return trials.judge(of or trial(), in_order, config, NOW + hours * 3600)


def test_who_is_compared_with_whom() -> None:
    """Each domain's version with the one before it, from the record that first named it; the first with nobody."""
    soup = "helper/soup-v1.0"
    found = trials.of([record(1, OLD), record(2, NEW), record(3, NEW, soup)])
    assert found == [
        Trial(NEW, "git", OLD, NOW + 2 * DAY, canary=False),
        Trial(soup, "soup", None, NOW + 3 * DAY, canary=False),
    ]


def test_a_canary_is_compared_with_what_the_others_get() -> None:
    """At the same time. Once it graduated, with what the others got before that; other domains keep theirs."""
    soup = "helper/soup-v1.0"
    canary = [record(1, OLD, soup), record(2, NEW, soup, kind="canary", share=0.1)]
    assert trials.of(canary) == [
        Trial(NEW, "git", OLD, NOW + 2 * DAY, canary=True, trials=2),
        Trial(soup, "soup", None, NOW + DAY, canary=False),
    ]
    graduated = record(3, NEW, soup).model_copy(update={"builds_on": 1})
    assert trials.of([*canary, graduated])[0] == Trial(NEW, "git", OLD, NOW + 3 * DAY, canary=False, trials=2)


def test_what_was_forced_back_begins_anew() -> None:
    """Its old samples led to its withdrawal; whoever deploys it again says that they count no more."""
    history = [record(1, OLD), record(2, NEW), record(3, OLD, kind="rollback", quarantined=NEW)]
    forced = record(4, NEW, kind="deploy")
    assert trials.of([*history, forced]) == [Trial(NEW, "git", OLD, NOW + 4 * DAY, canary=False)]


def test_a_worse_version_is_withdrawn_with_its_numbers() -> None:
    """The reason names both versions, their means and the e-value; the record has them as numbers."""
    found = judged(said(OLD, drawn(0.9, 300, 1), -3) + said(NEW, drawn(0.6, 200, 2)))
    assert found.act == "withdraw" and f"{NEW} 0.575" in found.reason and f"against {OLD} 0.9" in found.reason
    assert found.numbers["e_value"] >= found.numbers["e_value_needed"] == pytest.approx(100)
    assert (found.numbers["new_samples"], found.numbers["old_samples"], found.numbers["pairs"]) == (200, 300, 200)


def test_few_samples_conclude_nothing() -> None:
    """However bad they are; one more than too few does."""
    old = said(OLD, [1.0] * 300, -3)
    assert judged(old + said(NEW, [0.0] * 19)).act == "wait"
    assert judged(old + said(NEW, [0.0] * 20)).act == "withdraw"


def test_without_partners_it_waits_and_says_so() -> None:
    """A predecessor that hardly anybody judged is not enough; nor is one that was never there."""
    few = judged(said(OLD, [1.0] * 5, -3) + said(NEW, [0.0] * 100))
    assert few.act == "wait" and "no sample of the predecessor is left" in few.reason and few.numbers["pairs"] == 5
    first = judged(said(NEW, [0.0] * 100), trial(predecessor=None))
    assert first.act == "wait" and "first version" in first.reason


def test_only_samples_of_the_two_and_of_their_time_count() -> None:
    """Others' versions, none named, too old, or after the comparison ended: all are passed over."""
    passed = [
        *said("helper/git-v0.9", [0.0] * 300, -1), *said("", [0.0] * 300), *said(OLD, [1.0] * 300, -40),
        *said(NEW, [0.0] * 300, 31), *said(NEW, [0.0] * 300, -2),
    ]  # fmt: skip
    found = judged(passed)
    assert found.act == "wait" and (found.numbers["new_samples"], found.numbers["old_samples"]) == (0, 0)


def test_a_trial_ends() -> None:
    """After its days a version is no longer compared: samples begin to be forgotten, and would be paired anew."""
    worse = said(OLD, [1.0] * 300, -3) + said(NEW, [0.0] * 300)
    assert judged(worse, hours=30 * 24).act == "withdraw"
    over = judged(worse, hours=30 * 24 + 1)
    assert over.act == "wait" and "was compared with its predecessor for 30 days" in over.reason


def test_false_rollbacks_stay_below_the_rate() -> None:
    """Of 300 versions as good as their predecessors, judged after every 25 samples of 500, at most 1 in 100 goes."""
    gone = 0
    for run in range(RUNS):
        samples = said(OLD, drawn(0.8, 500, 2 * run), -3) + said(NEW, drawn(0.8, 500, 2 * run + 1))
        gone += judged(samples).act == "withdraw"  # the largest evidence ever counts: every look is in the last
    assert gone <= 0.01 * RUNS + 3 * (0.01 * 0.99 * RUNS) ** 0.5


def beside(new: float, old: float, number: int = 4000, share: float = 0.2) -> list[Sample]:
    """Samples of a canary and of the others, as they come."""
    made = np.random.default_rng(5)
    of_new = made.random(number) < share
    right = made.random(number) < np.where(of_new, new, old)
    return [
        Sample(NOW + minute, SATISFACTION, float(value), NEW if canary else OLD, NOW + minute)
        for minute, (canary, value) in enumerate(zip(of_new, right, strict=True))
    ]


def test_a_canary_graduates_goes_back_or_waits() -> None:
    """By evidence as it comes; without, by what the config says once its time is over."""
    assert judged(beside(0.95, 0.95, 8000), trial(canary=True)).act == "graduate"
    assert judged(beside(0.6, 0.9), trial(canary=True)).act == "withdraw"
    waiting = judged(beside(0.9, 0.9, 400), trial(canary=True))
    assert waiting.act == "wait" and waiting.look_again == NOW + 72 * 3600
    for at_last in ("graduate", "roll_back"):
        config = Config.model_validate({"base": "x", "canary": {"at_last": at_last}})
        over = judged(beside(0.9, 0.9, 400), trial(canary=True), config, hours=72)
        assert over.act == at_last and "nothing was shown of it in 72 hours" in over.reason


def test_a_canary_is_judged_again_once_it_graduated() -> None:
    """The predecessor gives no more samples then: those from before are held against what everybody gets now."""
    canary = record(2, NEW, kind="canary", share=0.2)
    graduated = record(3, NEW).model_copy(update={"builds_on": 1})
    (again,) = trials.of([record(1, OLD), canary, graduated])
    few = said(OLD, [1.0, 0.0], 2.5) + said(NEW, [1.0, 0.0], 2.5)
    good = said(OLD, drawn(0.9, 300, 1), 1) + few
    found = judged(good + said(NEW, drawn(0.1, 300, 2), 3), again, hours=4 * 24)
    assert found.act == "withdraw" and found.numbers["new_samples"] == 300, "what the canary got is the first trial's"
    assert judged(good + said(NEW, drawn(0.9, 300, 3), 3), again, hours=4 * 24).act == "wait"


def test_the_trials_of_a_canary_share_one_rate() -> None:
    """Its whole life long it is falsely taken for worse at most at the rate: each of the two may use half of it."""
    worse = said(OLD, [1.0] * 300, -3) + said(NEW, [0.0] * 300)
    for canary, needed in ((True, 200), (False, 100)):
        of = Trial(NEW, "git", OLD, NOW, canary=False, trials=2 if canary else 1)
        assert judged(worse, of).numbers["e_value_needed"] == pytest.approx(needed)
    assert judged(beside(0.6, 0.9), trial(canary=True)).numbers["e_value_needed"] == pytest.approx(200)


def test_a_season_is_no_regression_beside() -> None:
    """Everybody is less content by the day: a canary like the others stays; compared with the past it would go."""
    made = np.random.default_rng(8)
    quality = np.linspace(0.95, 0.5, 4000)
    of_new, right = made.random(4000) < 0.5, made.random(4000) < quality
    samples = [
        Sample(NOW + minute, SATISFACTION, float(right[minute]), NEW if of_new[minute] else OLD, NOW + minute)
        for minute in range(4000)
    ]
    assert judged(samples, trial(canary=True)).act != "withdraw"
    assert judged(said(OLD, [float(each) for each in right[:1000]], -3) +
                  said(NEW, [float(each) for each in right[3000:]])).act == "withdraw"  # fmt: skip


def test_a_metric_that_cannot_be_compared_says_so() -> None:
    """Versions stay as they are; a canary still ends in time."""
    samples = said(OLD, [0.5] * 50, -3) + said(NEW, [350.0] * 50)
    assert judged(samples).act == "wait" and "has the value 350" in judged(samples).reason
    assert judged(samples, trial(canary=True), hours=73).act == "graduate"


def test_a_value_reported_wrongly_is_left_out() -> None:
    """A percentage among fractions does not end the watching over a version; how many were left out is said."""
    wrong = [*said(NEW, [85.0], 0.001), *said(OLD, [-1.0], -2)]
    found = judged(said(OLD, drawn(0.9, 300, 1), -3) + said(NEW, drawn(0.6, 200, 2)) + wrong)
    assert found.act == "withdraw" and "outside 0 to 1 were left out: 2" in found.reason
    assert (found.numbers["new_samples"], found.numbers["old_samples"], found.numbers["left_out"]) == (200, 300, 2)

"""The sequential test keeps the error rate it states, whoever looks how often, and finds real drops soon."""

from __future__ import annotations

import numpy as np
import pytest

from genome import sequential
from genome.errors import InvalidInput
from genome.sequential import Values

RUNS, PAIRS, RATE = 2000, 1000, 0.05
"""The rate is high, so that a broken bound shows: 5 % of 2,000 runs are 100."""


def alarms(differences: Values) -> float:
    """The share of runs (rows) in which the money ever reached 1/RATE."""
    return float((sequential.log_wealth(differences).max(axis=1) >= -np.log(RATE)).mean())


def answers(generator: np.random.Generator, quality: Values | float) -> Values:
    """0 or 1 for every run and pair."""
    return (generator.random((RUNS, PAIRS)) < quality).astype(float)


def drifting(generator: np.random.Generator) -> Values:
    """A quality a run that wanders between 0.3 and 0.95, by the hour and at random."""
    hours = 0.2 * np.sin(np.linspace(0, 20, PAIRS) + generator.random((RUNS, 1)) * 6)
    return np.clip(0.7 + hours + generator.normal(0, 0.01, (RUNS, PAIRS)).cumsum(axis=1), 0.3, 0.95)


def streaks(generator: np.random.Generator) -> Values:
    """Neither better nor worse at any time, given all before; but how wildly values differ follows what just came."""
    signs = generator.choice((-1.0, 1.0), (RUNS, PAIRS))
    wild = np.concatenate([np.ones((RUNS, 1), bool), signs[:, :-1] > 0], axis=1)
    return signs * np.where(wild, 1.0, 0.05)


def blocks(generator: np.random.Generator) -> Values:
    """Seven samples of the old version to each of the new."""
    return (generator.random((RUNS, PAIRS, 7)) < 0.8).mean(axis=2) - answers(generator, 0.8)


EQUAL = {
    "rarely right": lambda made: answers(made, 0.1) - answers(made, 0.1),
    "as often as not": lambda made: answers(made, 0.5) - answers(made, 0.5),
    "nearly always right": lambda made: answers(made, 0.97) - answers(made, 0.97),
    "a little better": lambda made: answers(made, 0.8) - answers(made, 0.82),
    "drifting together": lambda made: np.subtract(*(answers(made, rate) for rate in [drifting(made)] * 2)),
    "streaks": streaks,
    "several to one": blocks,
    "no zeros and ones": lambda made: made.beta(0.5, 0.2, (RUNS, PAIRS)) - made.beta(0.5, 0.2, (RUNS, PAIRS)),
}  # fmt: skip


@pytest.mark.parametrize("kind", EQUAL)
def test_false_alarms_stay_below_the_rate(kind: str) -> None:
    """Of 2,000 versions that are not worse, each looked at after every one of 1,000 pairs, at most the rate alarms."""
    found = alarms(EQUAL[kind](np.random.default_rng(len(kind))))
    print(f"{kind}: {found:.2%} of false alarms, {RATE:.0%} are stated")
    assert found <= RATE + 3 * np.sqrt(RATE * (1 - RATE) / RUNS)


def test_the_sum_of_differences_by_itself_would_not_do() -> None:
    """A test made for one look, looked at after every pair, alarms far above its rate: what this one is for."""
    made = EQUAL["as often as not"](np.random.default_rng(0))
    number = np.arange(1, PAIRS + 1)
    deviation = np.sqrt((made**2).cumsum(axis=1) + 1)
    found = (made.cumsum(axis=1) / deviation > 1.645)[:, number > 20].any(axis=1).mean()
    assert found > 3 * RATE


@pytest.mark.parametrize(("drop", "within"), [(0.05, 1800), (0.10, 480), (0.20, 140)])
def test_a_drop_is_found_soon(drop: float, within: int) -> None:
    """From 0.8, at the rate of 0.01 that is the default: half of all regressions within so many pairs."""
    made, pairs = np.random.default_rng(7), 4000
    old, new = ((made.random((400, pairs)) < quality).astype(float) for quality in (0.8, 0.8 - drop))
    reached = sequential.log_wealth(old - new) >= np.log(100)
    found = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, pairs)
    print(f"{drop:.0%}: {int(np.median(found))} pairs, 90 % within {int(np.quantile(found, 0.9))}")
    assert np.median(found) <= within and reached.any(axis=1).mean() > 0.95


def test_not_worse_is_shown_of_equals_and_not_of_worse() -> None:
    """Within 5 points: shown of most equals; of a version that is worse by just that, at most at the rate."""
    made, pairs = np.random.default_rng(3), 4000
    shown = {}
    for loss in (0.0, 0.05):
        old, new = ((made.random((400, pairs)) < quality).astype(float) for quality in (0.85, 0.85 - loss))
        shown[loss] = np.mean([sequential.not_worse(row, 0.05, RATE).shown for row in old - new])
    print(f"not worse: shown of {shown[0.0]:.1%} of equals, of {shown[0.05]:.1%} that lost the margin")
    assert shown[0.0] > 0.9 and shown[0.05] <= RATE + 3 * np.sqrt(RATE * (1 - RATE) / 400)


def test_samples_are_paired_in_order_each_once() -> None:
    """What has no partner yet waits; several of a rich predecessor go together."""
    assert sequential.in_order([1, 0, 1], [1, 1]).tolist() == [0, -1]
    assert sequential.in_order([1, 0, 1, 1, 0], [1, 0, 0], together=2).tolist() == [-0.5, 1]
    assert sequential.in_order([], [1]).size == 0
    assert [sequential.together(number) for number in (0, 999, 3000, 10**6)] == [1, 1, 2, 8]


def test_a_pair_side_by_side_has_something_of_both() -> None:
    """Old ones that came together are one mean, whichever side came first."""
    samples = [(False, 1.0), (False, 0.0), (True, 1.0), (True, 0.0), (True, 1.0), (False, 1.0), (False, 0.0)]
    assert sequential.side_by_side(samples).tolist() == [-0.5, 0.5]


def test_what_was_shown_stays_shown() -> None:
    """Later samples cannot take an alarm back: the largest money counts."""
    bad, good = np.ones(30), -np.ones(300)
    assert sequential.worse(bad, 0.01).shown
    assert sequential.worse(np.concatenate([bad, good]), 0.01).shown
    assert not sequential.worse(good, 0.01).shown and sequential.worse(np.array([]), 0.01).pairs == 0


def test_a_metric_out_of_bounds_is_refused() -> None:
    """The bound rests on values from 0 to 1, so latency in milliseconds is named and not compared; a slip is passed."""
    with pytest.raises(InvalidInput, match="latency has the value 350"):
        sequential.check([0.5, 350.0, 290.0], "latency")
    sequential.check([0.5, 0.4, 350.0], "csat")

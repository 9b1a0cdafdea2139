"""Which old signals are trained again: the weightier more often, never one that must not be, the same at every look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from fixed import NOW
from trained_home import DOMAIN, PERSONA, TrainedHome

from genome import batches, curriculum, registry, replay, retraction, scores
from genome.lines import from_signal
from genome.replay import Lesson
from genome.scores import Scores

Make = Callable[..., Any]
DRAWS = 600
"""Batches that are drawn for, by their ids alone."""


def chosen(weights: dict[str, float], count: int, signal: Make, draws: int = DRAWS) -> Counter[str]:
    """How often each was drawn, over many batches."""
    weighed = [(math.log(weight), from_signal(signal(0, id=name))) for name, weight in weights.items()]
    return Counter(line.id for draw in range(draws) for line in replay.draw(weighed, count, f"batch-{draw}"))


def test_the_weightier_is_chosen_more_often(signal: Make) -> None:
    """Of one draw in proportion: three to one. The lightest is still chosen sometimes."""
    found = chosen({"heavy": 3.0, "light": 1.0}, 1, signal)
    assert found["heavy"] + found["light"] == DRAWS
    assert found["heavy"] / DRAWS == pytest.approx(0.75, abs=0.05)
    ranked = chosen({"a": 8.0, "b": 4.0, "c": 2.0, "d": 1.0}, 2, signal)
    assert all(ranked[more] > ranked[less] for more, less in pairwise("abcd")) and ranked["d"] > 0


def test_nothing_is_drawn_twice_and_all_where_there_are_few(signal: Make) -> None:
    """Without replacement, whatever the weights are; also where they leave the range of a float."""
    weighed = [(weight, from_signal(signal(0, id=str(weight)))) for weight in (0.0, -2e4, -1e5, 700.0)]
    assert [line.id for line in replay.draw(weighed, 9, "x")] == ["700.0", "0.0", "-20000.0", "-100000.0"]
    assert replay.draw(weighed, 0, "x") == []


def test_a_draw_is_the_same_at_every_look_and_another_for_each_batch(signal: Make) -> None:
    """It follows from the batch's id and the signals', not from their order."""
    weighed = [(0.0, from_signal(signal(i, id=f"s{i}"))) for i in range(50)]
    first = replay.draw(weighed, 10, "batch-1")
    assert replay.draw(weighed[::-1], 10, "batch-1") == first
    assert {line.id for line in replay.draw(weighed, 10, "batch-2")} != {line.id for line in first}


def test_a_half_life_older_is_half_as_likely() -> None:
    """Twice that a quarter; at no age is it nothing, and what lies in the future counts as new."""

    def weight(age: float, half_life: float = 30.0) -> float:
        return math.exp(replay.log_weight(1.0, (1.0, 2.0), age, half_life))

    assert weight(30.0) == pytest.approx(weight(0.0) / 2) and weight(60.0) == pytest.approx(weight(0.0) / 4)
    assert replay.log_weight(1.0, (1.0, 2.0), 30.0 * 10_000, 30.0) > -math.inf
    assert weight(-5.0) == weight(0.0) == weight(1e6, math.inf)


def test_what_counts_less_and_what_is_known_weighs_less() -> None:
    """By the signal's own weight; by the share of its tokens that is missed, which is never taken for none at all."""

    def weight(own: float, right: float, of: float) -> float:
        return math.exp(replay.log_weight(own, (right, of), 0.0, math.inf))

    assert weight(0.5, 3, 10) == pytest.approx(weight(1.0, 3, 10) / 2)
    assert weight(1.0, 0, 10) > weight(1.0, *replay.UNSEEN) > weight(1.0, 9, 10) > weight(1.0, 10, 10)
    assert weight(1.0, 10, 10) == pytest.approx(weight(1.0, 0, 10) / 10)


def test_what_was_not_asked_counts_as_what_came_with_it(signal: Make) -> None:
    """Those that are asked stand for their batch; a batch of which none was asked is in between."""
    lessons = [Lesson(from_signal(signal(i, id=f"{batch}{i}")), batch) for batch in "abc" for i in range(3)]
    asked = {"a0": (9.0, 10.0), "a1": (10.0, 10.0), "b0": (1.0, 10.0)}
    found = {line.id: weight for weight, line in replay.weigh(lessons, asked, 0, math.inf)}
    assert found["b0"] == found["b2"] > found["c0"] == found["c2"] > found["a0"] > found["a2"] > found["a1"]


def test_what_is_missed_most_is_what_the_serving_version_misses_now(trained: TrainedHome, signal: Make) -> None:
    """By the newest scores of the versions that serve, and of none that was rolled back."""
    home = trained.home
    for number, given in enumerate((2.0, 8.0, 5.0)):
        made = trained.turn([signal(100 * number + i) for i in range(10)])
        seen = {f"recall/{DOMAIN}": {"old": (given, 10.0)}, "anchors": {"x": (1.0, 1.0)}}
        Scores(adapter=made, incumbent=(), before={}, after=seen).write(scores.path(home, made))
    assert replay.recalled(home, PERSONA, DOMAIN) == {"old": (5.0, 10.0)}
    registry.roll_back(home, PERSONA, NOW, "test")
    assert replay.recalled(home, PERSONA, DOMAIN) == {"old": (8.0, 10.0)}
    assert replay.recalled(home, PERSONA, "other") == replay.recalled(home, "nobody", DOMAIN) == {}


def replayed(trained: TrainedHome, count: int, half_life_days: float = math.inf, draws: int = 60) -> Counter[str]:
    """How often each was chosen, over batches that differ in nothing but their ids."""
    (batch,) = (each for each in batches.queued(trained.home, PERSONA, DOMAIN) if not each.rebuilds)
    found: Counter[str] = Counter()
    for number in range(draws):
        again = batch.model_copy(update={"id": f"batch-2030-01-01-{number:03d}"})
        found.update(each.id for each in curriculum.replay_part(trained.home, again, count, 4, half_life_days))
    return found


def of(found: Counter[str], first: str) -> int:
    return sum(times for name, times in found.items() if name.startswith(first))


def test_older_and_better_known_signals_are_replayed_less(trained: TrainedHome, signal: Make) -> None:
    """By the batch's own time; and where the reserve of one batch is answered worse, more of that batch."""
    millis = int(NOW * 1000)
    for number, name in enumerate(("old", "new")):
        stamp = millis - (0 if name == "new" else 300 * replay.DAY_MILLIS)
        trained.turn([signal(100 * number + i, id=f"{name} {i}", timestamp=stamp) for i in range(20)])
    trained.batch([signal(900 + i, id=f"last {i}") for i in range(10)])
    even, aged = replayed(trained, 6), replayed(trained, 6, half_life_days=100.0)
    assert of(even, "old") > 0.35 * even.total() and of(aged, "old") < 0.25 * aged.total() and of(aged, "old") > 0
    (serves,) = registry.stack_of(trained.home, PERSONA)
    (batch,) = batches.queued(trained.home, PERSONA, DOMAIN)
    asked = curriculum.reserve(curriculum.taught_before(trained.home, batch), 4)
    assert {line.id[:3] for line in asked} == {"old", "new"}
    seen = {line.id: (0.0 if line.id.startswith("old") else 60.0, 60.0) for line in asked}
    Scores(adapter=serves.adapter, incumbent=(), before={}, after={f"recall/{DOMAIN}": seen}).write(
        scores.path(trained.home, serves.adapter)
    )
    missed = replayed(trained, 6)
    assert of(missed, "old") > 0.8 * missed.total() and of(missed, "new") > 0


def test_what_must_not_be_taught_is_never_drawn(trained: TrainedHome, signal: Make) -> None:
    """However much it weighs: superseded, retracted, held out, reserved or asked anew."""
    home, heavy = trained.home, {"weight": 1000.0}
    trained.turn([signal(i, id=f"s {i}", weight=1e-3) for i in range(40)] + [signal(90, id="gone", **heavy)])
    trained.turn([signal(100 + i, id=f"t {i}", weight=1e-3) for i in range(10)])
    beaten = [signal(i, id=f"u {i}", correctOutput="else") for i in range(10)]
    batch = trained.batch(beaten)
    retraction.retract(home, "gone", "test", NOW)
    known = {line.id for line in curriculum.taught(home, PERSONA, DOMAIN)}
    reserved = {line.id for line in curriculum.reserve(curriculum.taught_before(home, batch), 4)}
    drawn = set(replayed(trained, 1000, draws=2))
    assert len(reserved) == 4 and set(batch.supersedes) and drawn
    assert drawn == known - reserved - set(batch.supersedes) and "gone" not in known
    assert drawn == set(replayed(trained, 6))


def test_what_was_taught_is_drawn_as_anchors_by_the_same_weights(trained: TrainedHome, signal: Make) -> None:
    """Another domain's signals are anchors: the weightier and the younger more often, and none of its reserve."""
    trained.domain = "other"
    named = {"domain": "other"}
    old = int(NOW * 1000) - 300 * replay.DAY_MILLIS
    lines = [signal(i, id=f"old {i}", timestamp=old, **named) for i in range(20)]
    trained.turn([*lines, *(signal(50 + i, id=f"new {i}", **named) for i in range(20))])
    trained.domain = DOMAIN
    batch = trained.batch([signal(900 + i) for i in range(10)])
    found: Counter[str] = Counter()
    for number in range(60):
        again = batch.model_copy(update={"id": f"batch-2030-01-01-{number:03d}"})
        found.update(each.id for each in curriculum.anchored(trained.home, again, 5, 4, 100.0))
    reserved = {line.id for line in curriculum.reserve(curriculum.taught(trained.home, PERSONA, "other"), 4)}
    assert found.total() == 300 and 0 < of(found, "old") < 0.25 * found.total() and not reserved & set(found)

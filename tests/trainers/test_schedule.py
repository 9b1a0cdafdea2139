"""Order, batches and learning rate follow from the job alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from daemon.trainers import schedule
from daemon.trainers.batches import batches
from daemon.trainers.examples import Tokens, Wrong
from genome.training import TrainingSettings

LENGTHS = [3 + (index * 37) % 50 for index in range(100)]


def settings(**changes: float) -> TrainingSettings:
    return TrainingSettings.model_validate({"epochs": 3, "batch_size": 16, **changes})


def tokens(prompt: int, response: int, weight: float = 1.0) -> Tokens:
    return Tokens(list(range(10, 10 + prompt)), list(range(50, 50 + response)), weight)


def test_an_epoch_is_every_signal_and_every_anchor_once() -> None:
    plan = schedule.steps(LENGTHS, [5] * 40, settings())
    assert len(plan) == 3 * 7
    for epoch in range(3):
        part = plan[7 * epoch : 7 * epoch + 7]
        assert Counter(index for step in part for index in step.signals) == Counter(range(100))
        assert Counter(index for step in part for index in step.anchors) == Counter(range(40))


def test_batches_and_anchors_are_spread_evenly() -> None:
    plan = schedule.steps(LENGTHS, [5] * 40, settings())
    assert {len(step.signals) for step in plan} == {14, 15}
    assert {len(step.anchors) for step in plan} == {5, 6}


def test_fewer_anchors_than_steps_leave_some_steps_without() -> None:
    plan = schedule.steps(LENGTHS, [5] * 2, settings(epochs=1))
    assert sum(len(step.anchors) for step in plan) == 2
    assert max(len(step.anchors) for step in plan) == 1


def test_the_seed_alone_decides_the_order() -> None:
    assert schedule.steps(LENGTHS, LENGTHS, settings()) == schedule.steps(LENGTHS, LENGTHS, settings())
    assert schedule.steps(LENGTHS, LENGTHS, settings()) != schedule.steps(LENGTHS, LENGTHS, settings(seed=1))


def test_part_of_an_epoch_is_its_first_batches() -> None:
    assert schedule.steps(LENGTHS, [], settings(epochs=1.5)) == schedule.steps(LENGTHS, [], settings())[:10]
    assert len(schedule.steps([3], [], settings(epochs=0.01))) == 1


def test_like_lengths_come_together_and_padding_is_small() -> None:
    plan = schedule.steps(LENGTHS * 10, [], settings(epochs=1))
    cells = sum(len(step.signals) * max(LENGTHS[index % 100] for index in step.signals) for step in plan)
    assert cells < 1.15 * sum(LENGTHS) * 10


def test_the_learning_rate_warms_up_and_then_falls_like_a_cosine() -> None:
    chosen = settings(learning_rate=1.0, warmup_fraction=0.1, min_rate_fraction=0)
    rates = [schedule.learning_rate(step, 100, chosen) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001
    kept = chosen.model_copy(update={"min_rate_fraction": 0.3})
    assert [schedule.learning_rate(step, 100, kept) for step in (10, 55, 99)] == pytest.approx([1, 0.65, 0.3], abs=1e-3)
    assert schedule.learning_rate(0, 1, settings(learning_rate=1.0, warmup_fraction=0)) == 1.0


def test_an_average_looks_back_over_its_share_of_the_run() -> None:
    """However long that is; until so many are made it is the mean of all of them, so that what is measured early is not
    where the run began. Where it is no step at all, the newest weights are kept."""
    chosen = settings(average_fraction=0.1)
    assert [schedule.average_decay(999, steps, chosen) for steps in (5, 10, 20, 1000)] == [None, None, 0.5, 0.99]
    assert schedule.average_decay(999, 1000, settings(average_fraction=0)) is None
    mean = 0.0
    for step in range(100):
        decay = schedule.average_decay(step, 1000, chosen)
        assert decay is not None
        mean = decay * mean + (1 - decay) * step
        assert mean == pytest.approx(step / 2)


def test_a_batch_points_at_the_logits_that_predict_the_response() -> None:
    (batch,) = batches([tokens(2, 3), tokens(4, 1)])
    assert batch.tokens.tolist() == [10, 11, 50, 51, 10, 11, 12, 13]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert list(zip(batch.places, batch.rows, batch.targets, strict=True)) == [
        (1, 0, 50), (2, 0, 51), (3, 0, 52), (7, 1, 50),
    ]  # fmt: skip


def test_a_batch_can_be_padded_to_rows_of_one_length() -> None:
    (batch,) = batches([tokens(2, 2), tokens(4, 1)])
    assert batch.padded.tolist() == [[10, 11, 50, 0], [10, 11, 12, 13]]
    assert list(zip(batch.rows, batch.columns, batch.targets, strict=True)) == [(0, 1, 50), (0, 2, 51), (1, 3, 50)]


def test_a_pair_is_two_rows_of_which_the_right_one_alone_is_learned() -> None:
    pair = Tokens([1, 2], [3, 4], 2.0, wrong=Wrong([5], (-1.0, -2.0)))
    (batch,) = batches([pair, tokens(2, 2)])
    assert batch.pairs.tolist() == [[0, 1]]
    assert batch.references.tolist() == [[-1.0, -2.0]]
    assert batch.pair_weights.tolist() == [1.0]
    assert batch.tokens.tolist() == [1, 2, 3, 1, 2, 10, 11, 50]
    assert batch.weights[batch.rows == 1].tolist() == [0.0]
    assert batch.weights.sum() == pytest.approx(1)


def test_what_is_learned_by_preference_alone_has_no_cross_entropy() -> None:
    (batch,) = batches([Tokens([1, 2], [3, 4], 2.0, learned=False, wrong=Wrong([5]))])
    assert batch.weights.sum() == 0
    assert batch.pair_weights.sum() == 1


def test_weights_are_those_of_a_mean_over_tokens_in_which_examples_repeat() -> None:
    (weighted,) = batches([tokens(2, 3, 2.0), tokens(2, 1)])
    (repeated,) = batches([tokens(2, 3), tokens(2, 3), tokens(2, 1)])
    by_target = {target: float(weighted.weights[weighted.targets == target].sum()) for target in weighted.targets}
    again = {target: float(repeated.weights[repeated.targets == target].sum()) for target in repeated.targets}
    assert by_target == pytest.approx(again)
    assert float(weighted.weights.sum()) == pytest.approx(1)


def test_a_large_step_is_done_in_several_passes_that_add_up() -> None:
    examples = [tokens(5 + index, 2) for index in range(12)]
    for padded in (False, True):
        passes = list(batches(examples, 40, padded))
        assert len(passes) > 1
        assert all((batch.padded if padded else batch.tokens).size <= 40 for batch in passes)
        assert sum(len(batch.targets) for batch in passes) == 24
        assert np.concatenate([batch.weights for batch in passes]).sum() == pytest.approx(1)


def test_weightless_examples_make_no_batch() -> None:
    assert list(batches([tokens(2, 2, 0.0)])) == []
    assert list(batches([])) == []

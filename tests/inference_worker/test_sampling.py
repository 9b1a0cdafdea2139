"""Promises of sampling: seeds repeat, limits hold, nonsense is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from worker_runs import Steps, generation

from genome.errors import InvalidInput
from inference_worker.engine import Engine
from inference_worker.sampling import Sampler, Sampling

LOGITS = np.log(np.array([0.05, 0.5, 0.3, 0.15], dtype=np.float32))


def drawn(count: int = 4000, **settings: Any) -> np.ndarray:
    """Shares of the four tokens among so many choices."""
    sampler = Sampler(Sampling(temperature=1.0, seed=7, **settings))
    return np.bincount([sampler.choose(LOGITS) for _ in range(count)], minlength=4) / count


def test_tokens_are_drawn_with_their_probabilities() -> None:
    """Without limits at temperature 1 each token comes as often as the model says."""
    assert drawn() == pytest.approx([0.05, 0.5, 0.3, 0.15], abs=0.03)


def test_top_k_and_top_p_leave_the_likeliest() -> None:
    """top_k keeps that many; top_p the fewest that together have the probability."""
    assert drawn(top_k=2) == pytest.approx([0, 0.625, 0.375, 0], abs=0.03)
    assert drawn(top_p=0.6) == pytest.approx([0, 0.625, 0.375, 0], abs=0.03)
    assert drawn(top_p=0.4) == pytest.approx([0, 1, 0, 0])


def test_a_seed_gives_the_same_reply_whatever_shares_the_batch(engine: Engine, steps: Steps) -> None:
    """The same seed writes the same tokens alone and among others; another seed writes others."""

    def seeded(seed: int) -> Any:
        return generation((5, 9, 40), 16, sampling=Sampling(temperature=100.0, seed=seed))

    alone = seeded(1)
    steps.submit(alone)
    steps.step_until_done(alone)
    crowd = [seeded(1), seeded(2), generation((7, 8), 16), generation((9,) * 30, 16)]
    for request in crowd:
        steps.submit(request)
        steps.step()
    steps.step_until_done(*crowd)
    assert crowd[0].written == alone.written
    assert crowd[1].written != alone.written


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("top_k", -1),
        ("max_tokens", -1),
        ("stop", ("",)),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: Any) -> None:
    """A setting outside its range is an error, not a guess."""
    with pytest.raises(InvalidInput):
        Sampling(**{name: value})

"""Figures of several seeds with their intervals: bootstrap over the seeds and over the questions, both at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.scoring import Score

RESAMPLES = 2000
SEED = 20
CONFIDENCE = 0.95
"""Two-sided."""

Answers = Callable[[str, str], float]
"""(arm, set of questions) → token accuracy over all seeds."""


@dataclass(frozen=True)
class Figure:
    """What is made of the accuracies of some arms on some sets of questions."""

    arms: tuple[str, ...]
    questions: tuple[str, ...]
    value: Callable[[Answers], float]


def interval(figure: Figure, scores: Mapping[tuple[str, str], Sequence[Score]]) -> tuple[float, float, float]:
    """(value, low, high); ``scores``: by arm and set of questions, one a seed.

    Percentiles of resampling with replacement: seeds, and within them questions, the same for all arms, since they
    were asked the same (the pigeonhole bootstrap, Owen 2007).
    """
    seeds = min(len(scores[arm, name]) for arm in figure.arms for name in figure.questions)
    sizes = {name: len(scores[figure.arms[0], name][0].tokens) for name in figure.questions}
    # [seeds, questions]; one question's tokens are the same whoever answers
    right = {key: np.array([each.right for each in found]) for key, found in scores.items()}
    tokens = {name: scores[figure.arms[0], name][0].tokens for name in figure.questions}

    def value(runs: np.ndarray, picks: Mapping[str, np.ndarray]) -> float:
        def accuracy(arm: str, name: str) -> float:
            drawn = right[arm, name][np.ix_(runs, picks[name])]
            return float(drawn.sum() / (tokens[name][picks[name]].sum() * len(runs)))

        return figure.value(accuracy)

    everything = value(np.arange(seeds), {name: np.arange(size) for name, size in sizes.items()})
    chance = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES):
        picks = {name: chance.integers(0, size, size) for name, size in sizes.items()}
        found.append(value(chance.integers(0, seeds, seeds), picks))
    low, high = np.nanquantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return everything, float(low), float(high)

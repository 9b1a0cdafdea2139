"""Which examples each step sees, and how fast it learns: pure functions of lengths, settings and the seed."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from genome.training import TrainingSettings

WINDOW = 8
"""Batches whose examples are sorted by length among themselves: little padding, and still nearly random batches."""


@dataclass(frozen=True)
class Step:
    """Indices of the signals and of the anchors that one optimizer step sees."""

    signals: tuple[int, ...]
    anchors: tuple[int, ...]


def steps(signal_lengths: Sequence[int], anchor_lengths: Sequence[int], settings: TrainingSettings) -> list[Step]:
    """All steps of a run. Lengths are in tokens.

    An epoch is every signal once and every anchor once, dealt into as many batches as signals of ``batch_size`` fill,
    all of nearly the same size. A fraction of an epoch at the end is its first batches.
    """
    count = math.ceil(len(signal_lengths) / settings.batch_size)
    total = max(1, round(settings.epochs * count))
    run: list[Step] = []
    for epoch in range(math.ceil(total / count)):
        signals = _deal(signal_lengths, count, random.Random(f"signals {settings.seed} {epoch}"))
        anchors = _deal(anchor_lengths, count, random.Random(f"anchors {settings.seed} {epoch}"))
        run += [Step(*pair) for pair in zip(signals, anchors, strict=True)]
    return run[:total]


def _deal(lengths: Sequence[int], count: int, chance: random.Random) -> list[tuple[int, ...]]:
    """Every index once, in ``count`` batches whose sizes differ by at most one, with like lengths together."""
    order = list(range(len(lengths)))
    chance.shuffle(order)
    edges = [len(order) * batch // count for batch in range(count + 1)]
    for first in range(0, count, WINDOW):
        window = slice(edges[first], edges[min(first + WINDOW, count)])
        order[window] = sorted(order[window], key=lambda index: lengths[index])
    batches = [tuple(order[start:end]) for start, end in itertools.pairwise(edges)]
    chance.shuffle(batches)
    return batches


def learning_rate(step: int, total: int, settings: TrainingSettings) -> float:
    """Of the step numbered from 0: linear warm-up to the peak, then a cosine that would reach its end at ``total``."""
    warmup = math.ceil(settings.warmup_fraction * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    lowest = settings.min_rate_fraction
    return settings.learning_rate * (lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2)


def average_decay(step: int, total: int, settings: TrainingSettings) -> float | None:
    """What an average of the weights keeps of itself after the step numbered from 0: the mean of all steps, until these
    are as many as it looks back over. None: it looks back over none, and is the newest weights."""
    window = settings.average_fraction * total
    return 1 - 1 / min(step + 1, window) if window > 1 else None

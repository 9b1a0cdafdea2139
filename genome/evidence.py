"""What a sample of questions can show: bounds by paired bootstrap, and how many questions a claim needs. Seeded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
SEED = 20

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """An estimate, with a lower and an upper bound, each by itself at the confidence it was asked for."""

    value: float
    low: float
    high: float


def mean(values: Values, confidence: float) -> Bounds:
    """Of a mean over questions."""
    return ratio(values, np.ones_like(values), confidence)


def ratio(numerator: Values, denominator: Values, confidence: float) -> Bounds:
    """Of Σ numerator ÷ Σ denominator over the same questions, resampled together.

    Bias-corrected and accelerated percentiles (BCa, Efron 1987): what is forgotten sits in few questions, and plain
    percentiles are too sure of themselves then.
    """
    value = float(numerator.sum() / max(denominator.sum(), 1e-12))
    generator = np.random.default_rng(SEED)
    picks = generator.integers(0, len(numerator), size=(RESAMPLES, len(numerator)))
    below_the_line = denominator[picks].sum(axis=1)
    # Where none of the questions drawn had anything to lose, nothing was lost.
    ratios = np.where(below_the_line > 0, numerator[picks].sum(axis=1) / np.maximum(below_the_line, 1e-12), 1.0)
    # Ties count half: where most questions say the same, many resamples do too.
    below = (np.count_nonzero(ratios < value) + np.count_nonzero(ratios == value) / 2) / RESAMPLES
    if not 0 < below < 1:
        return Bounds(value, float(ratios.min()), float(ratios.max()))
    bias, bend = NormalDist().inv_cdf(below), _acceleration(numerator, denominator)
    low, high = np.quantile(ratios, [_level(1 - confidence, bias, bend), _level(confidence, bias, bend)])
    return Bounds(value, float(low), float(high))


def _level(level: float, bias: float, bend: float) -> float:
    """The percentile that BCa takes for ``level``."""
    shifted = bias + NormalDist().inv_cdf(level)
    return NormalDist().cdf(bias + shifted / (1 - bend * shifted))


def _acceleration(numerator: Values, denominator: Values) -> float:
    """How fast the spread changes with the value, from leaving each question out."""
    without = (numerator.sum() - numerator) / np.maximum(denominator.sum() - denominator, 1e-12)
    apart = without.mean() - without
    spread = float((apart**2).sum())
    return float((apart**3).sum()) / (6 * spread**1.5) if spread else 0.0


def questions_needed(spread: float, gain: float, confidence: float, power: float) -> int:
    """Questions so that a mean gain of ``gain`` is told from none with probability ``power``, at one-sided
    ``confidence``; ``spread`` is the standard deviation over questions. Cohen 1988: ((z_c + z_p) · spread ÷ gain)².
    """
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(confidence) + normal.inv_cdf(power)) * spread / gain) ** 2)

"""What a sample of questions can show: bounds by paired bootstrap, and how many questions a claim needs. Seeded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
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
    """Of Σ numerator ÷ Σ denominator over the same questions, resampled together (percentile method, Efron 1979)."""
    generator = np.random.default_rng(SEED)
    picks = generator.integers(0, len(numerator), size=(RESAMPLES, len(numerator)))
    ratios = numerator[picks].sum(axis=1) / np.maximum(denominator[picks].sum(axis=1), 1e-12)
    low, high = np.quantile(ratios, [1 - confidence, confidence])
    return Bounds(float(numerator.sum() / max(denominator.sum(), 1e-12)), float(low), float(high))


def questions_needed(spread: float, gain: float, confidence: float, power: float) -> int:
    """Questions so that a mean gain of ``gain`` is told from none with probability ``power``, at one-sided
    ``confidence``; ``spread`` is the standard deviation over questions. Cohen 1988: ((z_c + z_p) · spread ÷ gain)².
    """
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(confidence) + normal.inv_cdf(power)) * spread / gain) ** 2)

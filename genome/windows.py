"""A metric's mean over a window that moves with time: what it is now, and when time alone takes it over a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from genome.feedback import Sample
from genome.trigger_settings import QualityDrop


@dataclass(frozen=True)
class Window:
    """The samples that count, oldest first."""

    samples: Sequence[Sample]
    seconds: float
    """How long each counts."""
    fewest: int
    """With fewer there is no mean."""

    @property
    def mean(self) -> float | None:
        return self._means()[0] if len(self.samples) >= self.fewest else None

    def falls_below(self, line: float) -> float | None:
        """When the mean, now at or above ``line``, is below it if no further sample comes; None: never."""
        return self._crosses(line, rising=False)

    def rises_to(self, line: float) -> float | None:
        """When the mean, now below ``line``, reaches it if no further sample comes; None: never."""
        return self._crosses(line, rising=True)

    def _crosses(self, line: float, rising: bool) -> float | None:
        means = self._means()
        for gone in range(1, len(self.samples) - self.fewest + 1):
            ends = self.samples[gone - 1].time + self.seconds
            if ends < self.samples[gone].time + self.seconds and (means[gone] >= line) is rising:
                return ends
        return None

    def _means(self) -> list[float]:
        """Of all samples, of all but the oldest, and so on. Each is added up from its newest, so that a mean that is
        foreseen is, to the last bit, the one that comes."""
        sums = accumulate(sample.value for sample in reversed(self.samples))
        return [total / count for count, total in enumerate(sums, 1)][::-1]


def window(settings: QualityDrop, samples: Sequence[Sample], now: float) -> Window:
    seconds = settings.window_hours * 3600
    counting = [sample for sample in samples if sample.metric == settings.metric and sample.time + seconds > now]
    return Window(counting[-settings.window_samples :], seconds, settings.min_samples)  # [-0:] is all of them

"""Replay: which of what earlier batches taught is trained again beside a new one, so that it stays known.

Drawn by weight, without replacement: a signal counts by its own weight, by how badly what it came with is answered now,
and less the older it is. Age counts against a signal because answers go out of date: tools change and so do tastes, and
only what somebody corrected again is superseded. That what is old may be forgotten needs no guess by age: the gate asks
a reserve of every batch again, and what is missed there counts for more here.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from genome import promotions, registry, scores
from genome.layout import Home
from genome.lines import Line
from genome.scores import Observed

DAY_MILLIS = 86_400_000
UNSEEN: Observed = (0.5, 1.0)
"""Of what was never asked: half of it."""
KNOWN = 0.1
"""What is answered perfectly counts this part of what is missed entirely: it stays known because it is replayed."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A signal that a promoted batch taught."""

    line: Line
    batch: str
    """Id of the batch it came with."""


Weighed = tuple[float, Line]
"""The natural logarithm of a weight, and whose it is."""


def log_weight(weight: float, seen: Observed, age_days: float, half_life_days: float) -> float:
    """ln(weight · missed · 2^(−age ÷ half-life)): as a logarithm, since ages of decades leave the range of a float.

    ``missed`` goes from `KNOWN` to 1 with the share of its tokens that is answered wrong.
    """
    missed = KNOWN + (1 - KNOWN) * (1 - scores.share([seen]))
    return math.log(weight) + math.log(missed) - math.log(2) * max(0.0, age_days) / half_life_days


def weigh(
    lessons: Sequence[Lesson], asked: Mapping[str, Observed], now_millis: int, half_life_days: float
) -> Iterator[Weighed]:
    """The weight of each. One that was not asked itself counts as those that came with it: they stand for its batch."""
    by_batch: dict[str, list[Observed]] = defaultdict(list)
    for lesson in lessons:
        if (seen := asked.get(lesson.line.id)) is not None:
            by_batch[lesson.batch].append(seen)
    came_with = {
        batch: (sum(right for right, _ in each), sum(of for _, of in each)) for batch, each in by_batch.items()
    }
    for lesson in lessons:
        seen = asked.get(lesson.line.id, came_with.get(lesson.batch, UNSEEN))
        age_days = (now_millis - lesson.line.timestamp) / DAY_MILLIS
        yield log_weight(lesson.line.weight, seen, age_days, half_life_days), lesson.line


def draw(weighed: Iterable[Weighed], count: int, draw_id: str) -> list[Line]:
    """Up to ``count`` of them, without replacement, each draw in proportion to the weights of those that are left.

    The keys are those of Efraimidis and Spirakis (Information Processing Letters 97(5), 2006): the greatest u^(1/w) are
    taken. As ln w − ln(−ln u) they come in the same order. u is a hash of the id with ``draw_id``: another sample for
    each draw, the same at every look.
    """
    keyed = ((log_of_weight - math.log(-math.log(_uniform(draw_id, line.id))), line) for log_of_weight, line in weighed)
    return [line for _, line in heapq.nlargest(count, keyed, key=lambda pair: pair[0])]


def recalled(home: Home, persona: str, domain: str) -> dict[str, Observed]:
    """By question: what the persona's stack was last seen to give on what the domain was taught.

    From the scores of the versions that serve: each was asked about every domain of its stack before it was promoted.
    """
    past = registry.history(home, persona)
    settled = promotions.settled(past)
    if settled is None:
        return {}
    served = sorted(settled.adapters, key=lambda each: _first(past, each))
    found: dict[str, Observed] = {}
    for known in scores.of_versions(home, served):
        found |= known.after.get(f"recall/{domain}", {})
    return found


def _first(past: Sequence[promotions.Promotion], adapter_id: str) -> int:
    return next(promotion.number for promotion in past if adapter_id in promotion.adapters)


def _uniform(draw_id: str, signal_id: str) -> float:
    """Strictly between 0 and 1, in 2^52 equal steps."""
    digest = hashlib.sha256(f"{draw_id} {signal_id}".encode()).digest()
    return ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / 2.0**52

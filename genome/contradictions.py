"""Contradictions: two signals that give the same question of one domain different right answers.

The one of the higher source wins (human over ai over automated), of equal ones the later; the other is superseded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from genome.lines import Line
from genome.segments import Stored

Standing = tuple[float, int, int]


@dataclass(frozen=True)
class Superseded:
    """Ids of the signals that lose."""

    here: frozenset[str]
    """Among those that were asked about."""
    earlier: frozenset[str]
    """Among those that were there before, and lose to one of these."""


def find(signals: Iterable[Stored], earlier: Iterable[Stored]) -> Superseded:
    """Who loses. Signals without a right answer contradict nobody."""
    answers: dict[bytes, list[tuple[Standing, Line, bool]]] = {}
    for number, stored in enumerate(signals):
        line = stored.signal
        if line.teaches:
            answers.setdefault(line.question, []).append(((*line.standing, number), line, True))
    for stored in earlier:
        line = stored.signal
        if line.teaches and (known := answers.get(line.question)) is not None:
            known.append(((*line.standing, -1), line, False))
    here: set[str] = set()
    before: set[str] = set()
    for rivals in answers.values():
        best = max(rivals, key=lambda rival: rival[0])[1].correct_output
        for _, line, is_here in rivals:
            if line.correct_output != best:
                (here if is_here else before).add(line.id)
    return Superseded(frozenset(here), frozenset(before))

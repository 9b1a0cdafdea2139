"""Poison search: which signals of a refused batch break the gate, by bisection over real trainings. Pure.

    set-aside/<batch>/search.json    asked for, of which signals; what was probed stands in the verdicts of its probes
    set-aside/<batch>/poison.json    what was found

A probe trains a part of the batch alone and is judged like any candidate, but never promoted. A part that breaks is
halved, and the halves are probed, until a breaking part is small enough to be named. Where a part breaks and neither of
its halves does, it is named whole: its signals break the gate only together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from genome.quality import Verdict
from genome.records import Record

Part = tuple[str, ...]
"""Ids of signals, in the order of arrival."""


class Search(Record):
    """search.json: that a batch is to be searched."""

    batch: str
    max_probes: int
    smallest: int
    """A breaking part of so few signals is named without halving it further."""
    whole: tuple[str, ...]
    """Ids of the signals to search, in the order that is halved: it stays what it is until the search is over."""
    created: int
    """Milliseconds since 1970."""


class Poison(Record):
    """poison.json: what a search found."""

    batch: str
    signals: tuple[str, ...]
    """Ids of those that break the gate; empty: no part of the batch breaks it alone."""
    complete: bool
    """False: the probes were used up, or one failed, and the parts named were not halved to the end."""
    probes: int
    """How many were judged."""
    max_probes: int
    """How many were allowed. With more, a search that was not complete goes on."""
    whole: tuple[str, ...]
    """Ids of the signals that were searched."""
    failed: str = ""
    """Id of the probe whose training failed for good, and ended the search."""
    created: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Progress:
    """Where a search stands."""

    next: Part | None
    """What to probe; None: it is over."""
    suspects: tuple[Part, ...]
    """Breaking parts as far as they were halved."""
    complete: bool


def progress(search: Search, probed: Mapping[Part, bool], gone: Collection[str] = (), more: bool = True) -> Progress:
    """What to do, given which parts were probed and whether they broke the gate. The whole did.

    ``gone``: ids that were retracted since. Parts are halved where they were, but none is probed that has nothing
    else, and what broke with one of them and not without is laid to no other. ``more``: whether a probe may be made.
    """
    known = _Known(probed, frozenset(gone), search.smallest)
    suspects: list[Part] = []
    for part in _unknown(search.whole, known, suspects):
        if not more or len(probed) >= search.max_probes:
            return Progress(None, (*suspects, *_open(search.whole, probed, suspects)), complete=False)
        return Progress(part, tuple(suspects), complete=False)
    return Progress(None, tuple(suspects), complete=True)


def halves(part: Part) -> tuple[Part, Part]:
    middle = (len(part) + 1) // 2
    return part[:middle], part[middle:]


def why(verdict: Verdict) -> list[str]:
    """Findings that a batch was refused for; what could not be told of old questions refuses like a failure."""
    return [finding.name for finding in verdict.findings if not finding.passed and finding.name != "evidence"]


def broke(verdict: Verdict, refused_for: Collection[str]) -> bool:
    """Whether a probe failed for what the batch was refused for.

    A part is smaller than its batch and may well have learned too little: of "learned" only its opposite counts.
    """
    failed = [each for each in verdict.findings if not each.passed and each.name in refused_for]
    return any(finding.name != "learned" or finding.high < 0 for finding in failed)


@dataclass(frozen=True)
class _Known:
    probed: Mapping[Part, bool]
    gone: frozenset[str]
    smallest: int

    def breaks(self, part: Part) -> bool | None:
        """None: it must be probed."""
        return self.probed.get(part) if set(part) - self.gone else False


def _unknown(part: Part, known: _Known, suspects: list[Part]) -> Iterator[Part]:
    """Parts of a breaking part that must be probed next; those that are settled are named on the way."""
    if len(part) <= known.smallest:
        suspects.append(part)
        return
    both = halves(part)
    for half in both:
        if known.breaks(half) is None:
            yield half
    if not any(known.breaks(half) for half in both) and not known.gone & set(part):
        suspects.append(part)
        return
    for half in both:
        if known.breaks(half):
            yield from _unknown(half, known, suspects)


def _open(whole: Part, probed: Mapping[Part, bool], named: Sequence[Part]) -> list[Part]:
    """Breaking parts that nothing smaller was named of."""
    breaking = [part for part, bad in probed.items() if bad] or [whole]
    known = [*named, *breaking]
    return [part for part in breaking
            if part not in named and not any(set(other) < set(part) for other in known)]  # fmt: skip

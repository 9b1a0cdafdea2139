"""Every signal that was accepted lies in one place: what the ledger knows is held against what the segments hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from genome import files, segments
from genome.checks import keys
from genome.checks.batches import Domain
from genome.checks.contents import Contents
from genome.checks.keys import Keys
from genome.checks.problems import ASK, BACKUP, Problem, View, rubbish
from genome.ledger import Run, key
from genome.segments import Stored

Counts = dict[str, int]


@dataclass(frozen=True)
class Accepted:
    """All signals that were ever accepted, as far as anything knows."""

    number: int
    """Each once."""
    problems: tuple[Problem, ...]
    unwitnessed: int
    """Of them, those that only their segments know: the ledger was not written since."""


def check(view: View, domains: list[Domain], runs: list[Run], merged: list[Run]) -> Accepted:
    """Who lies twice, is known but lies nowhere, or lies somewhere but is not known."""
    contents = [made for domain in domains for made in domain.contents]
    present = keys.arranged(made.keys for made in contents)
    problems = list(_twice(contents, present))
    in_runs = (np.column_stack([run.high, run.low]) for run in runs)
    lost = keys.arranged(halves[~present.hold(halves)] for halves in in_runs).distinct
    ledger = view.home.ledger
    if lost:
        what = f"knows {lost} signals that no segment holds: they were accepted, and are lost"
        problems.append(Problem(ledger, what, f"{BACKUP}. If they were removed on purpose, remove the ledger too"))
    elif runs and (behind := _behind(contents, runs)):
        # With signals lost the ledger stays: it is all that knows of them.
        what = f"lacks {behind} signals it says it has: they could be accepted twice"
        problems.append(Problem(ledger, what, f"{ASK}: it is made anew", partial(files.remove, ledger)))
    if not view.live:
        problems += [rubbish(run.path, "was merged into another run") for run in merged]
    unwitnessed = sum(len(made.keys) - made.covered for made in contents)
    return Accepted(present.distinct + lost, tuple(problems), unwitnessed)


def count(domains: list[Domain]) -> Counts:
    """Signals by the state of where they were found; each line is in one."""
    counts: Counts = dict.fromkeys(
        ("pending", "queued", "archived", "set aside", "superseded", "retracted", "evidence"), 0
    )
    for domain in domains:
        beaten = keys.arranged([keys.of_ids(domain.persona, domain.domain, domain.superseded)])
        for made in domain.contents:
            retracted = int(np.count_nonzero(made.retracted))
            superseded = int(np.count_nonzero(beaten.hold(made.keys) & ~made.retracted))
            counts["retracted"] += retracted
            counts["evidence"] += len(made.keys) - made.teaching - retracted
            counts["superseded"] += superseded
            counts[made.state] += made.teaching - superseded
    return counts


def _twice(contents: list[Contents], present: Keys) -> Iterator[Problem]:
    """One problem a pair of segments, with an id of those they share."""
    ends = np.cumsum([len(made.keys) for made in contents])
    pairs: Counter[tuple[int, int]] = Counter()
    examples: dict[tuple[int, int], bytes] = {}
    for place in present.repeated.tolist():
        first, second = sorted(int(np.searchsorted(ends, present.order[at], "right")) for at in (place - 1, place))
        pairs[first, second] += 1
        halves = int(present.high[place]), int(present.low[place])
        examples[first, second] = b"".join(half.to_bytes(8, "big") for half in halves)
    for (first, second), number in pairs.items():
        path, other = contents[first].path, contents[second].path
        found = (stored for _, stored in segments.examine(path, False) if isinstance(stored, Stored))
        lines = (stored.signal for stored in found)
        example = next(
            line.id for line in lines if key(line.persona_id, line.domain, line.id) == examples[first, second]
        )
        where = "twice" if first == second else f"also in {other}"
        yield Problem(path, f"{number} of its signals lie {where}, such as {example}", "Remove one of the two lines")


def _behind(contents: list[Contents], runs: list[Run]) -> int:
    """How many signals below the marks are in no run."""
    known = keys.arranged(np.column_stack([run.high, run.low]) for run in runs)
    return sum(int(np.count_nonzero(~known.hold(made.keys[: made.covered]))) for made in contents)

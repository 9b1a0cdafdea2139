"""Retractions: what was taken back is gone, and why is known; what pruned versions were trained on is known, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genome import adapters
from genome.adapters import Manifest
from genome.checks import keys
from genome.checks.batches import Domain
from genome.checks.problems import BACKUP, Problem, View, parsed
from genome.files import UNFINISHED
from genome.tombstones import Retraction


def check(view: View, domains: list[Domain], notes: list[str]) -> Iterator[Problem]:
    """``notes``: what a person should know though nothing is wrong."""
    for domain in domains:
        names = domain.persona, domain.domain
        waiting = list(_records(view.home.retracting(*names)))
        done = list(_records(view.home.retracted(*names)))
        yield from (found for _, found in (*waiting, *done) if isinstance(found, Problem))
        if waiting:
            notes.append(f"{len(waiting)} retractions of {'/'.join(names)} were interrupted: the daemon ends them")
        yield from _back(domain, [(path, found) for path, found in done if isinstance(found, Retraction)])
        named = [found.signal for _, found in (*waiting, *done) if isinstance(found, Retraction)]
        gone = keys.arranged(made.keys[made.retracted] for made in domain.contents)
        known = keys.arranged([keys.of_ids(*names, named)])
        if unknown := int(np.count_nonzero(~known.hold(np.column_stack([gone.high, gone.low])))):
            notes.append(f"{unknown} signals of {'/'.join(names)} were retracted, and no record says why")
    yield from _lineage(view)


def _back(domain: Domain, done: list[tuple[Path, Retraction]]) -> Iterator[Problem]:
    there = keys.arranged(made.keys[~made.retracted] for made in domain.contents)
    ids = [retraction.signal for _, retraction in done]
    for (path, retraction), back in zip(
        done, there.hold(keys.of_ids(domain.persona, domain.domain, ids)).tolist(), strict=True
    ):
        if back:
            what = f"says that {retraction.signal} was retracted, and it is there"
            yield Problem(path, what, "Retract it again: genome signal retract")


def _lineage(view: View) -> Iterator[Problem]:
    place = view.home.lineage("x").parent
    for path in sorted(place.glob("*/*.json")) if place.is_dir() else []:
        if path.name.startswith(UNFINISHED):
            continue
        made = parsed(Manifest, path)
        if isinstance(made, Problem):
            yield made
        elif not adapters.ID.fullmatch(made.id) or view.home.lineage(made.id) != path:
            yield Problem(path, f"is the manifest of {made.id}", BACKUP)


def _records(place: Path) -> Iterator[tuple[Path, Retraction | Problem]]:
    for path in sorted(place.glob("*.json")) if place.is_dir() else []:
        if not path.name.startswith(UNFINISHED):
            yield path, parsed(Retraction, path)

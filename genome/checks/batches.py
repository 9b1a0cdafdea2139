"""One domain's batches and segments: each batch is whole, and each segment belongs to one batch at most."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from genome import files, segments
from genome.batches import SEGMENT, Batch
from genome.checks import contents, keys
from genome.checks.contents import Contents, Place
from genome.checks.problems import ASK, BACKUP, Problem, View, parsed, rubbish
from genome.ledger import Mark

BATCH = re.compile(r"batch-\d{4}-\d\d-\d\d-\d{3,}")


class Ids:
    """A batch's digest, fed one id at a time."""

    def __init__(self) -> None:
        self._sha256, self._any = hashlib.sha256(), False

    def add(self, signal_id: str) -> None:
        self._sha256.update(f"\n{signal_id}".encode() if self._any else signal_id.encode())
        self._any = True

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


@dataclass
class Domain:
    """What was found in one persona's domain."""

    persona: str
    domain: str
    mark: Mark | None
    """Up to where the ledger has it."""
    contents: list[Contents] = field(default_factory=list)
    batches: list[tuple[str, Path, Batch]] = field(default_factory=list)
    """(state, directory, record)."""
    superseded: set[str] = field(default_factory=set)
    taken: dict[Path, Contents] = field(default_factory=dict)
    """Segments that were read."""

    @property
    def place(self) -> Place:
        return Place(self.persona, self.domain, self.mark)


def check(view: View, found: Domain) -> Iterator[Problem]:
    """Fills ``found`` and says what is wrong with it."""
    home, names = view.home, (found.persona, found.domain)
    places = {"queued": home.queued, "archived": home.archive, "set aside": home.set_aside}
    for state, place in places.items():
        yield from _directories(found, state, place(*names))
    yield from _shared(found)
    yield from _rebuilt(found)
    for state, directory, batch in found.batches:
        yield from _batch(view, found, state, directory, batch)
        found.superseded.update(batch.superseded, batch.supersedes if state == "archived" else ())
    for directory in [home.pending(*names), *(place(*names) for place in places.values())]:
        state = next((state for state, place in places.items() if place(*names) == directory), "pending")
        yield from _rest(view, found, state, directory)


def _directories(found: Domain, state: str, place: Path) -> Iterator[Problem]:
    for directory in sorted(place.iterdir()) if place.is_dir() else []:
        if not BATCH.fullmatch(directory.name):
            continue
        if not (directory / "batch.json").exists():
            yield Problem(directory, "is a batch without batch.json", f"Its signals are not trained. {BACKUP}")
            continue
        batch = parsed(Batch, directory / "batch.json")
        if isinstance(batch, Problem):
            yield batch
        elif (batch.id, batch.persona, batch.domain) != (directory.name, found.persona, found.domain):
            what = f"is the record of {batch.id} of {batch.persona}/{batch.domain}"
            yield Problem(directory / "batch.json", what, "Move it to where it belongs")
        else:
            found.batches.append((state, directory, batch))


def _shared(found: Domain) -> Iterator[Problem]:
    owners: dict[str, Path] = {}
    for _, directory, batch in found.batches:
        for name in batch.segments:
            first = owners.setdefault(name, directory)
            if first != directory:
                what = f"names {name}, which {first.parent.name}/{first.name} names too"
                yield Problem(directory / "batch.json", what, f"A segment belongs to one batch. {BACKUP}")


def _rebuilt(found: Domain) -> Iterator[Problem]:
    """A rebuild has no signals but those of archived batches."""
    archived = {batch.id for state, _, batch in found.batches if state == "archived"}
    for state, directory, batch in found.batches:
        absent = [old for old in batch.rebuilds if old not in archived]
        if absent and state == "queued":
            what = f"trains again what {absent[0]} taught, which is not archived"
            yield Problem(directory / "batch.json", what, f"Queue another: genome training rebuild. {BACKUP}")


def _batch(view: View, found: Domain, state: str, directory: Path, batch: Batch) -> Iterator[Problem]:
    digest, held, problems = Ids(), [], []
    for name in batch.segments:
        pending, beside = view.home.pending(found.persona, found.domain) / name, directory / name
        path = pending if state == "queued" else beside
        if state != "queued" and pending.exists():
            if segments.exists(beside):
                problems.append(Problem(pending, f"lies beside {batch.id} as well", f"One is a copy. {BACKUP}"))
            else:
                yield Problem(pending, f"was left behind by {batch.id}", ASK, partial(files.move, pending, beside))
                path = pending
        if not segments.exists(path):
            problems.append(Problem(path, f"is missing; {batch.id} names it", f"Its signals are lost. {BACKUP}"))
        elif path not in found.taken:  # else another batch names it, which was said
            made = contents.read(view, path, state, found.place, digest)
            found.taken[path] = made
            found.contents.append(made)
            held.append(made)
            problems += made.problems
    yield from problems
    if not problems and len(held) == len(batch.segments):
        disagrees = list(_agrees(directory / "batch.json", batch, held, digest.hexdigest()))
        yield from disagrees
        # What the plain file holds is all there, so the other is what a crash left of compressing it.
        for made in held if not disagrees else []:
            if made.path.exists() and segments.packed(made.path).exists() and not view.live:
                yield rubbish(segments.packed(made.path), "lies beside the segment it was made of")


def _agrees(record: Path, batch: Batch, held: list[Contents], digest: str) -> Iterator[Problem]:
    if digest != batch.digest:
        yield Problem(record, "its digest is not that of its signals' ids", f"Its segments were changed. {BACKUP}")
        return
    here = keys.arranged(made.keys for made in held)
    for what in ("held_out", "superseded"):
        ids: tuple[str, ...] = getattr(batch, what)
        absent = [
            each
            for each, there in zip(ids, here.hold(keys.of_ids(batch.persona, batch.domain, ids)), strict=True)
            if not there
        ]
        if absent:
            yield Problem(record, f"{what} names {absent[0]!r}, which is none of its signals", BACKUP)
    teaching = sum(made.teaching for made in held)
    retracted = sum(int(made.retracted.sum()) for made in held)  # before it was formed, or since: then it counts them
    fewer = batch.signals + len(batch.superseded) - teaching, batch.evidence - (len(here) - teaching - retracted)
    if min(fewer) < 0 or sum(fewer) > retracted:
        what = f"counts {batch.signals} signals and {batch.evidence} of evidence, its segments hold others"
        yield Problem(record, what, BACKUP)


def _rest(view: View, found: Domain, state: str, place: Path) -> Iterator[Problem]:
    """Segments that no batch names."""
    inside = sorted(place.glob("*/")) if state != "pending" else []
    for path in (path for directory in [place, *inside] for path in segments.listed(directory)):
        if path in found.taken:
            continue
        if not SEGMENT.fullmatch(path.name):
            yield Problem(path, "has no segment's name", "Move it to the inbox if it holds signals, or away")
            continue
        if state != "pending":
            yield Problem(path, "is named by no batch", f"Its signals are not trained; move it away. {BACKUP}")
        made = contents.read(view, path, state, found.place)
        found.taken[path] = made
        found.contents.append(made)
        yield from made.problems

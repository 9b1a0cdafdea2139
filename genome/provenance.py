"""Provenance: which signals a version was trained on, and which versions a signal is in.

Nothing of it is written twice. A manifest names the signals its version was trained on, its parent and its batch; a
pruned version leaves its manifest in lineage/. A version is tainted while one of those signals, or of its ancestors',
was retracted: that follows from the manifests and the retractions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genome import adapters, batches, curriculum, files, jobs, registry, segments, tombstones
from genome.adapters import AdapterId, Manifest
from genome.batches import Batch
from genome.errors import Conflict, Damaged, InvalidInput, NotFound
from genome.layout import Home
from genome.promotions import Stack
from genome.quality import Verdict
from genome.segments import Stored
from genome.tombstones import Retraction
from genome.training import Example

SHORTEST_PREFIX = 8
"""Characters of an id that stand for it, where only one begins so."""
State = Literal["pending", "queued", "archived", "set aside", "superseded", "retracted", "evidence"]
PENDING: State = "pending"
Taints = dict[str, tuple[str, ...]]
"""By tainted version: the retracted signals in it or in its ancestors."""


@dataclass(frozen=True)
class Place:
    """Where a signal lies."""

    persona: str
    domain: str
    path: Path
    """Of its segment, as if it were not compressed."""
    line: int
    """From 1."""
    state: State
    batch: Batch | None
    """That its segment belongs to."""
    stored: Stored

    @property
    def id(self) -> str:
        return self.stored.signal.id


@dataclass(frozen=True)
class OfAdapter:
    """Where a version came from."""

    manifest: Manifest
    parents: tuple[str, ...]
    """Its ancestors, the newest first. The last may be one of which nothing is known any more."""
    verdict: Verdict | None
    """None: it was not judged, or its job was pruned."""
    signals: tuple[tuple[str, Place | None], ...]
    """(id, where it lies now) of each signal it was trained on itself, without its ancestors'."""
    tainted: tuple[str, ...]


@dataclass(frozen=True)
class OfSignal:
    """Where a signal went."""

    place: Place
    held_out: bool
    """Whether its batch keeps it to judge by."""
    retraction: Retraction | None
    jobs: tuple[str, ...]
    """That were ordered to train on it, as far as they are there or made a version."""
    trained: tuple[str, ...]
    """Versions trained on it."""
    descendants: tuple[str, ...]
    """Versions that go back to one of those."""
    serving: tuple[str, ...]
    """Of both, those that should be served now."""


def of_adapter(home: Home, adapter_id: str) -> OfAdapter:
    with files.locked(home.lock):
        made, known = _manifest(home, adapter_id), versions(home)
        parsed, wanted = AdapterId.parse(made.id), set(made.signals)
        found = {place.id: place for place in _walk(home, parsed.persona, parsed.domain, wanted.__contains__)}
        return OfAdapter(
            manifest=made,
            parents=chain(known, made.id)[1:],
            verdict=_verdict(home, made),
            signals=tuple((each, found.get(each)) for each in made.signals),
            tainted=taints(home).get(made.id, ()),
        )


def of_signal(home: Home, signal_id: str, persona: str = "", domain: str = "") -> OfSignal:
    with files.locked(home.lock):
        place = find(home, signal_id, persona, domain)
        known, names = versions(home), (place.persona, place.domain)
        trained, descendants = holders(known, *names, place.id)
        asked = {made for version in trained if (made := known[version].job)}
        asked |= {
            found.id for found in (*jobs.active(home), *jobs.completed(home)) if trains_on(found, place.id, names)
        }
        return OfSignal(
            place=place,
            held_out=place.batch is not None and place.id in place.batch.held_out,
            retraction=tombstones.find(home, *names, place.id),
            jobs=tuple(sorted(asked)),
            trained=trained,
            descendants=descendants,
            serving=tuple(sorted({*trained, *descendants} & serving(home))),
        )


def find(home: Home, signal_id: str, persona: str = "", domain: str = "") -> Place:
    """The one signal of that id, or whose id begins so. Under the home's lock."""
    if not signal_id:
        raise InvalidInput("it is not said which signal", "Give its id, or the first 8 characters of it")
    found = {
        (place.persona, place.domain, place.id): place
        for names in home.domains()
        if persona in ("", names[0]) and domain in ("", names[1])
        for place in _walk(home, *names, lambda each: each.startswith(signal_id), tombstones.needle(signal_id))
    }
    exact = [place for place in found.values() if place.id == signal_id]
    fitting = exact or (list(found.values()) if len(signal_id) >= SHORTEST_PREFIX else [])
    if not fitting:
        raise NotFound(
            f"there is no signal {signal_id!r}",
            f"Give its whole id, or at least {SHORTEST_PREFIX} characters it begins with; adapter blame lists ids",
        )
    if len(fitting) > 1:
        places = ", ".join(f"{place.persona}/{place.domain} {place.id}" for place in fitting)
        raise Conflict(f"{signal_id!r} names {len(fitting)} signals: {places}", "Add --persona and --domain, or more")
    return fitting[0]


def superseded_by(home: Home, place: Place) -> tuple[str, ...]:
    """Ids of the signals that lost against this one, where no other answers its question."""
    line = place.stored.signal
    if place.state not in ("queued", "archived", "set aside"):
        return ()
    asked = _walk(home, place.persona, place.domain, lambda each: each != place.id, tombstones.needle(line.input))
    rivals = [
        each
        for each in asked
        if each.stored.signal.teaches and not each.stored.retracted and each.stored.signal.question == line.question
    ]
    return tuple(each.id for each in rivals) if all(each.state == "superseded" for each in rivals) else ()


def versions(home: Home) -> dict[str, Manifest]:
    """Every version there is or was, by its id."""
    pruned = home.lineage("x").parent
    left = [Manifest.read(path) for path in sorted(pruned.glob("*/*.json"))] if pruned.is_dir() else []
    there = (adapters.manifest(home, str(known)) for known in adapters.list_ids(home))
    return {made.id: made for made in (*left, *there)}


def chain(known: Mapping[str, Manifest], adapter_id: str) -> tuple[str, ...]:
    """A version and its ancestors, the newest first."""
    found = [adapter_id]
    while (made := known.get(found[-1])) is not None and made.parent and made.parent not in found:
        found.append(made.parent)
    return tuple(found)


def batches_of(home: Home, known: Mapping[str, Manifest], adapter_id: str) -> set[str]:
    """Ids of the batches a version and its ancestors were trained on, those of a rebuild too."""
    named = [made.batch for each in chain(known, adapter_id) if (made := known.get(each)) and made.batch]
    rebuilt = {each for batch_id in named for each in _rebuilds(home, batch_id)}
    return rebuilt | set(named)


def holders(
    known: Mapping[str, Manifest], persona: str, domain: str, signal_id: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Versions trained on a signal, and versions that descend from one of those."""
    mine = [each for each in known if _line(each) == (persona, domain)]
    trained = {each for each in mine if signal_id in known[each].signals}
    descendants = {each for each in mine if trained.intersection(chain(known, each))} - trained
    return tuple(sorted(trained, key=AdapterId.parse)), tuple(sorted(descendants, key=AdapterId.parse))


def taints(home: Home) -> Taints:
    """Every tainted version that is or was there."""
    known = versions(home)
    retracted = {
        names: {retraction.signal for retraction in tombstones.all_of(home, *names)} for names in home.domains()
    }
    own = {each: retracted.get(_line(each), set()).intersection(made.signals) for each, made in known.items()}
    inherited = {each: {one for old in chain(known, each) for one in own.get(old, ())} for each in known}
    return {each: tuple(sorted(found)) for each, found in inherited.items() if found}


def tainted(home: Home, adapter_id: str) -> tuple[str, ...]:
    """The retracted signals in a version or its ancestors."""
    return taints(home).get(adapter_id, ())


def newly_tainted(home: Home, candidate: str, stack: Stack) -> tuple[str, ...]:
    """The retracted signals that ``candidate`` would bring to be served, beyond those in ``stack``, which is."""
    found = taints(home)
    there = {each for entry in stack for each in found.get(entry.adapter, ())}
    return tuple(each for each in found.get(candidate, ()) if each not in there)


def serving(home: Home) -> set[str]:
    """Ids of all adapters that should be served now, whether to all of a persona's sessions or to some."""
    return {adapter for promotion in registry.newest(home) for adapter in registry.served(home, promotion)}


def trains_on(directory: jobs.JobDirectory, signal_id: str, names: tuple[str, str]) -> bool:
    """Whether a job of that persona and domain has the signal among its examples."""
    return (False, names) in _examples(directory, signal_id)


def holds(directory: jobs.JobDirectory, signal_id: str, names: tuple[str, str]) -> bool:
    """The same, or whether one of the persona's, of this domain or another, has it as an anchor: its text, without
    learning it."""
    found = _examples(directory, signal_id)
    return (False, names) in found or any(anchor and job[0] == names[0] for anchor, job in found)


def lines_of(directory: jobs.JobDirectory, signal_id: str) -> tuple[bytes, list[tuple[int, int, Example]]]:
    """A job's examples as they are written, and (begin, end, example) of each of that id: no other is decoded."""
    data = directory.examples.read_bytes() if directory.examples.exists() else b""
    try:
        found = [
            (begin, end, Example.model_validate_json(data[begin:end]))
            for begin, end in tombstones.spans(data, tombstones.needle(signal_id))
        ]
    except ValueError as error:
        raise Damaged(f"{directory.examples} cannot be read: {error}") from error
    return data, [each for each in found if each[2].id == signal_id]


def _examples(directory: jobs.JobDirectory, signal_id: str) -> set[tuple[bool, tuple[str, str]]]:
    """(whether it is an anchor, persona and domain of the job) of each example of that id."""
    _, found = lines_of(directory, signal_id)
    if not found:
        return set()
    job = directory.job()
    return {(each.anchor, (job.persona, job.domain)) for _, _, each in found}


def _walk(home: Home, persona: str, domain: str, wanted: Callable[[str], bool], needle: bytes = b"") -> Iterator[Place]:
    """Signals of a domain whose id is wanted. ``needle``: what each of their lines holds."""
    owners = {name: owner for owner in _batches(home, persona, domain) for name in owner[1].segments}
    beaten = curriculum.superseded(home, persona, domain)
    for path in sorted(batches.all_segments(home, persona, domain), key=lambda path: batches.order(path.name)):
        owner = owners.get(path.name)
        where, batch = owner or (PENDING, None)
        for number, line in enumerate(segments.lines(path), 1):
            stored = tombstones.decoded(line) if needle in line else None
            if stored is None or not wanted(stored.signal.id):
                continue
            yield Place(persona, domain, path, number, _state(stored, where, beaten), batch, stored)


def _state(stored: Stored, where: State, beaten: set[str]) -> State:
    if stored.retracted:
        return "retracted"
    if not stored.signal.teaches:
        return "evidence"
    return "superseded" if stored.signal.id in beaten else where


def _batches(home: Home, persona: str, domain: str) -> Iterator[tuple[State, Batch]]:
    yield from (("queued", batch) for batch in batches.queued(home, persona, domain))
    yield from (("archived", batch) for batch in batches.archived(home, persona, domain))
    yield from (("set aside", batch) for batch in batches.set_aside_batches(home, persona, domain))


def _rebuilds(home: Home, batch_id: str) -> tuple[str, ...]:
    try:
        return batches.find(home, batch_id).rebuilds
    except NotFound:
        return ()


def _manifest(home: Home, adapter_id: str) -> Manifest:
    """Of a version that is there, or was pruned."""
    left = home.lineage(str(AdapterId.parse(adapter_id)))
    return Manifest.read(left) if left.exists() else adapters.manifest(home, adapter_id)


def _verdict(home: Home, made: Manifest) -> Verdict | None:
    for parent in (home.completed_jobs, home.active_jobs):
        path = parent / (made.job or "-") / "verdict.json"
        if path.exists():
            return Verdict.read(path)
    return None


def _line(adapter_id: str) -> tuple[str, str]:
    parsed = AdapterId.parse(adapter_id)
    return parsed.persona, parsed.domain

"""Batches: which sealed segments are trained together, and which of their signals are held out to judge by.

    queued/<batch>/batch.json        waits, trains or is judged; its segments still lie in pending/
    archive/<batch>/                 promoted: batch.json and the segments
    set-aside/<batch>/               refused: likewise, with reason.txt

The rename of the batch's directory is the act; the segments follow it, and `settle` moves what a crash left behind.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from genome import contradictions, files, segments, tombstones
from genome.errors import NotFound
from genome.layout import Home
from genome.lines import Line
from genome.records import Record
from genome.segments import Stored
from genome.signals import Signal

SEGMENT = re.compile(r"\d{4}-\d\d-\d\d-\d{3,}\.jsonl")


class Batch(Record):
    """batch.json. A segment it names is sealed and no longer pending."""

    id: str
    persona: str
    domain: str
    segments: tuple[str, ...]
    """File names, oldest first."""
    held_out: tuple[str, ...]
    """Ids of the signals kept from training. No question stands on both sides."""
    signals: int
    """That teach and were not superseded."""
    evidence: int = 0
    """Signals without an answer to learn from."""
    superseded: tuple[str, ...] = ()
    """Ids of its signals that another one contradicts and beats: never trained on."""
    supersedes: tuple[str, ...] = ()
    """Ids of signals in earlier batches that one of its signals beats: no longer, once it is promoted."""
    rebuilds: tuple[str, ...] = ()
    """Ids of archived batches whose signals it trains again, having none of its own (`genome.rebuilding`)."""
    parent: str | None = None
    """Of a rebuild: the adapter its training goes on from; None begins anew from the base."""
    graduates: tuple[str, ...] = ()
    """Ids of signals that earlier batches held out: measuring is over, so they are trained with this one."""
    digest: str
    """sha256 over the ids of all its signals."""
    reason: str
    """Why it was formed: the trigger's words."""
    created: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class HeldOutPolicy:
    fraction: float
    """At most this part of the questions …"""
    examples: int
    """… and at most so many of them."""
    at_least: int = 0
    """With fewer to judge by, no batch is formed: its signals wait for company."""


def form(home: Home, persona: str, domain: str, reason: str, now: float, policy: HeldOutPolicy) -> Batch | None:
    """Seals what is pending into a queued batch; None if too few there teach."""
    if not _enough(_pending(home, persona, domain), policy):
        return None  # nothing is sealed in vain
    with files.locked(home.lock):
        names = tuple(pending_segments(home, persona, domain))
        for name in names:
            files.seal(home.pending(persona, domain) / name)
    # What is sealed does not change, so intake goes on while it is looked at. A retraction alone changes it.
    retractions = tombstones.known(home, persona, domain)
    found = list(segments.scan_all(home.pending(persona, domain) / name for name in names))
    waiting = queued(home, persona, domain)  # first: one that is promoted meanwhile is then seen twice, not never
    ended = archived(home, persona, domain)
    earlier = (*ended, *waiting)
    lost = contradictions.find(found, (stored for batch in earlier for stored in _stored(home, batch)))
    teaching = [stored.signal for stored in found if stored.signal.teaches and stored.signal.id not in lost.here]
    held_out = hold_out(teaching, policy)
    if not teaching or _questions(teaching, held_out) < policy.at_least:
        return None
    ids = hashlib.sha256("\n".join(stored.signal.id for stored in found).encode()).hexdigest()
    with files.locked(home.lock):
        if set(names) & sealed_segments(home, persona, domain):
            return None  # another process was faster
        if tombstones.known(home, persona, domain) != retractions:
            return None  # what was found is not what lies there now: at the next look
        batch = Batch(
            id=_next_id(home, now),
            persona=persona,
            domain=domain,
            segments=names,
            held_out=tuple(sorted(held_out)),
            signals=len(teaching),
            evidence=sum(not stored.signal.teaches and not stored.retracted for stored in found),
            superseded=tuple(sorted(lost.here)),
            supersedes=tuple(sorted(lost.earlier)),
            graduates=_graduates(home, (ended, earlier), {line.question for line in teaching}, lost.earlier),
            digest=ids,
            reason=reason,
            created=int(now * 1000),
        )
        with files.new_directory(home.queued(persona, domain) / batch.id) as aside:
            files.put(aside / "batch.json", batch.to_bytes())
    return batch


def form_rebuild(home: Home, again: list[Batch], parent: str | None, reason: str, now: float) -> Batch:
    """Queues a batch that trains again what archived batches of one domain taught. Under the home's lock."""
    batch = Batch(
        id=_next_id(home, now),
        persona=again[0].persona,
        domain=again[0].domain,
        segments=(),
        held_out=(),
        signals=0,
        rebuilds=tuple(old.id for old in again),
        parent=parent,
        digest=hashlib.sha256().hexdigest(),
        reason=reason,
        created=int(now * 1000),
    )
    with files.new_directory(home.queued(batch.persona, batch.domain) / batch.id) as aside:
        files.put(aside / "batch.json", batch.to_bytes())
    return batch


def _graduates(
    home: Home, before: tuple[list[Batch], tuple[Batch, ...]], asked: set[bytes], lost: frozenset[str]
) -> tuple[str, ...]:
    """Held-out signals of promoted batches that none trained since, but for questions that are asked anew.

    ``before``: promoted batches, and these with the ones that still wait, which train what they name.
    """
    ended, earlier = before
    trained = {signal for batch in earlier for signal in (*batch.graduates, *batch.supersedes, *batch.superseded)}
    measured = {signal for batch in ended for signal in batch.held_out} - trained - lost
    if not measured:
        return ()
    lines = (stored.signal for batch in ended for stored in _stored(home, batch) if not stored.retracted)
    return tuple(sorted({line.id for line in lines if line.id in measured and line.question not in asked}))


def hold_out(signals: Iterable[Line], policy: HeldOutPolicy) -> set[str]:
    """Ids of the signals to judge by: whole questions, chosen by their hash, so that it is the same at every look."""
    by_question: dict[bytes, list[Line]] = {}
    for signal in signals:
        by_question.setdefault(signal.question, []).append(signal)
    ranked = sorted(by_question, key=lambda question: hashlib.sha256(question).digest())
    chosen = ranked[: min(policy.examples, int(len(ranked) * policy.fraction))]
    return {signal.id for question in chosen for signal in by_question[question]}


def queued(home: Home, persona: str, domain: str) -> list[Batch]:
    return _read_all(home.queued(persona, domain))


def archived(home: Home, persona: str, domain: str) -> list[Batch]:
    """Promoted batches. Of a rebuild none of the signals is its own, so it is not among them."""
    return [batch for batch in _read_all(home.archive(persona, domain)) if not batch.rebuilds]


def rebuilt(home: Home, batch: Batch) -> list[Batch]:
    """The batches whose signals a rebuild trains again."""
    return [find(home, old) for old in batch.rebuilds]


def set_aside_batches(home: Home, persona: str, domain: str) -> list[Batch]:
    return _read_all(home.set_aside(persona, domain))


def all_queued(home: Home) -> list[Batch]:
    """Of every persona and domain. Rebuilds first, since the others are to go on from them; then the oldest."""
    found = [batch for persona, domain in home.domains() for batch in queued(home, persona, domain)]
    return sorted(found, key=lambda batch: (not batch.rebuilds, order(batch.id)))


def pending_segments(home: Home, persona: str, domain: str) -> list[str]:
    """Names of segments no batch has taken, oldest first."""
    directory = home.pending(persona, domain)
    present = sorted((path.name for path in _segments_in(directory)), key=order)
    taken = {name for batch in queued(home, persona, domain) for name in batch.segments}
    free = [name for name in present if name not in taken]
    sealed = {name for name in free if files.is_sealed(directory / name)}
    if sealed:
        # No batch came of them, or their batch ended and they could not follow it yet: then it is no longer queued.
        taken = sealed if _illegible(home, persona, domain) else sealed_segments(home, persona, domain)
    return [name for name in free if name not in taken]


def _illegible(home: Home, persona: str, domain: str) -> bool:
    """Whether a batch lost its record: then any sealed segment may be one of its."""
    places = (home.queued(persona, domain), home.archive(persona, domain), home.set_aside(persona, domain))
    return any(not (path / "batch.json").exists() for place in places for path in place.glob("batch-*"))


def sealed_segments(home: Home, persona: str, domain: str) -> set[str]:
    """Names a batch has taken: one that is queued, or one that ended, which its segments may not have followed yet."""
    everywhere = (queued, archived, set_aside_batches)
    return {name for find in everywhere for batch in find(home, persona, domain) for name in batch.segments}


def all_segments(home: Home, persona: str, domain: str) -> list[Path]:
    """Every segment there is, wherever it lies now."""
    ended = (home.archive(persona, domain), home.set_aside(persona, domain))
    places = [home.pending(persona, domain), *(batch for place in ended for batch in place.glob("batch-*"))]
    return [path for place in places for path in segments.listed(place) if SEGMENT.fullmatch(path.name)]


def order(name: str) -> tuple[str, int]:
    """What segments and batches are sorted by: the day, then the number. 1000 comes after 999."""
    day, _, number = name.removesuffix(".jsonl").rpartition("-")
    return day, int(number)


def next_segment(home: Home, persona: str, domain: str, day: str) -> str:
    """Name of the segment that grows: the newest, if nothing sealed it, else one that no segment had before.

    Names rise, also where the clock went back: the ledger's marks rest on it. Call under the home's lock.
    """
    names = (path.name for path in all_segments(home, persona, domain))
    newest = max(names, key=order, default=f"{day}-000.jsonl")
    pending = home.pending(persona, domain) / newest
    if pending.exists() and not files.is_sealed(pending) and newest not in sealed_segments(home, persona, domain):
        return newest
    last, _, number = newest.removesuffix(".jsonl").rpartition("-")
    return f"{day}-001.jsonl" if day > last else f"{last}-{int(number) + 1:03d}.jsonl"


def signals(home: Home, batch: Batch) -> Iterator[Signal]:
    """Every signal of a batch, evidence included, in the order of arrival."""
    for name in batch.segments:
        yield from segments.read(_segment(home, batch, name))


def lines(home: Home, batch: Batch) -> Iterator[Line]:
    """The same as they are stored, for whoever goes through many."""
    return (stored.signal for stored in _stored(home, batch) if not stored.retracted)


def archive(home: Home, batch: Batch) -> None:
    """The batch was promoted. Doing it again changes nothing."""
    _move(home, batch, home.archive(batch.persona, batch.domain))


def set_aside(home: Home, batch: Batch, reason: str) -> None:
    """The batch was refused or could not be trained. Its signals stay, out of the way. Again changes nothing."""
    source = home.queued(batch.persona, batch.domain) / batch.id
    if source.exists():
        files.write(source / "reason.txt", f"{reason}\n".encode())
    _move(home, batch, home.set_aside(batch.persona, batch.domain))


def withdraw(home: Home, batch: Batch, reason: str) -> None:
    """What the batch made turned out worse: it leaves the archive, and is set aside. Again changes nothing."""
    archived_at = home.archive(batch.persona, batch.domain)
    if (archived_at / batch.id).exists():
        _move(home, batch, archived_at)  # what a crash left behind of archiving it
        files.write(archived_at / batch.id / "reason.txt", f"{reason}\n".encode())
        files.move(archived_at / batch.id, home.set_aside(batch.persona, batch.domain) / batch.id)


def settle(home: Home) -> None:
    """After a crash: lets segments follow the batches that own them."""
    for persona, domain in home.domains():
        for place in (home.archive(persona, domain), home.set_aside(persona, domain)):
            for batch in _read_all(place):
                _move(home, batch, place)


def release(home: Home, batch: Batch) -> None:
    """Its signals are pending again, to be formed into a batch with what comes. Again changes nothing.

    Of a batch that was set aside the segments move first: until its record is gone, `settle` moves them back.
    """
    pending = home.pending(batch.persona, batch.domain)
    aside = home.set_aside(batch.persona, batch.domain) / batch.id
    for path in segments.listed(aside):
        segments.restore(path)
        files.move(path, pending / path.name)
    if aside.exists():
        files.remove(aside)
    files.remove(home.queued(batch.persona, batch.domain) / batch.id)


def find(home: Home, batch_id: str) -> Batch:
    """A batch by its id, wherever it lies."""
    for persona, domain in home.domains():
        for place in (home.queued, home.archive, home.set_aside):
            path = place(persona, domain) / batch_id / "batch.json"
            if path.exists():
                return Batch.read(path)
    raise NotFound(f"there is no batch {batch_id!r}", "genome buffer status lists them")


def _pending(home: Home, persona: str, domain: str) -> list[Line]:
    names = pending_segments(home, persona, domain)
    directory = home.pending(persona, domain)
    return [stored.signal for stored in segments.scan_all(directory / name for name in names)]


def _enough(lines: list[Line], policy: HeldOutPolicy) -> bool:
    teaching = [line for line in lines if line.teaches]
    return bool(teaching) and _questions(teaching, hold_out(teaching, policy)) >= policy.at_least


def _questions(lines: Iterable[Line], chosen: set[str]) -> int:
    """How many different ones the chosen signals ask: the same one twice is no more evidence."""
    return len({line.question for line in lines if line.id in chosen})


def _stored(home: Home, batch: Batch) -> Iterator[Stored]:
    return segments.scan_all(_segment(home, batch, name) for name in batch.segments)


def _segments_in(directory: Path) -> list[Path]:
    """Whatever else lies there is none of ours."""
    if not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if SEGMENT.fullmatch(path.name)]


def _move(home: Home, batch: Batch, place: Path) -> None:
    source = home.queued(batch.persona, batch.domain) / batch.id
    if source.exists():
        files.move(source, place / batch.id)
    pending = home.pending(batch.persona, batch.domain)
    for name in batch.segments:
        if (pending / name).exists():
            files.move(pending / name, place / batch.id / name)


def _segment(home: Home, batch: Batch, name: str) -> Path:
    for place in (home.archive, home.set_aside):
        path = place(batch.persona, batch.domain) / batch.id / name
        if segments.exists(path):
            return path
    return home.pending(batch.persona, batch.domain) / name


def _read_all(place: Path) -> list[Batch]:
    if not place.is_dir():
        return []
    return [Batch.read(place / name / "batch.json") for name in sorted(_batch_names(place), key=order)]


def _batch_names(place: Path) -> list[str]:
    return [path.parent.name for path in place.glob("batch-*/batch.json")]


def _next_id(home: Home, now: float) -> str:
    """batch-2026-11-20-001: the day, and a number that no batch or job of any persona had that day."""
    day = f"batch-{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
    batches = [
        path
        for persona, domain in home.domains()
        for place in (home.queued, home.archive, home.set_aside)
        for path in place(persona, domain).glob(f"{day}-*")
    ]
    ordered = [path for place in (home.active_jobs, home.completed_jobs) for path in place.glob(f"job{day[5:]}-*")]
    # A job that was ordered again has its attempt behind the number: job-2026-11-20-001.2
    taken = [int(path.name.rpartition("-")[2].partition(".")[0]) for path in (*batches, *ordered)]
    return f"{day}-{max(taken, default=0) + 1:03d}"

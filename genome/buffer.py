"""The training buffer: what was accepted, what was refused, and how far each dropped file was read.

A chunk of lines is committed at once: refused lines and accepted signals are appended and synced, persona by persona,
each with the offset it had and the offset its chunk began at. A crash between two of those appends is healed by
reading again from the newest chunk's beginning: what is there already is known by its id or its offset.
"""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from genome import batches, files, intake, segments
from genome.errors import InvalidInput
from genome.layout import Home
from genome.segments import Origin, Stored
from genome.signals import Defaults, Signal, parse


class Rejected(BaseModel):
    """One line of rejected/<day>.jsonl."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    file: str
    """Path of the dropped file, as it was called when it was read."""
    line: int
    """From 1."""
    origin: Origin
    raw: str
    """The line as it was, base64; of one longer than a chunk, its beginning."""
    time: int
    """Milliseconds since 1970."""

    @property
    def raw_bytes(self) -> bytes:
        return base64.b64decode(self.raw)


@dataclass(frozen=True)
class Receipt:
    """What became of some lines."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    touched: frozenset[tuple[str, str]] = frozenset()
    """(persona, domain) of the accepted."""

    def __add__(self, other: Receipt) -> Receipt:
        return Receipt(
            self.accepted + other.accepted,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
            self.touched | other.touched,
        )


@dataclass
class Buffer:
    """The one writer of segments. `load` reads what a home holds; the supervisor keeps one for its life."""

    home: Home
    default_persona: str
    default_domain: str
    max_line_bytes: int
    ids: set[str] = field(default_factory=set)
    resume: dict[str, int] = field(default_factory=dict)
    """By file key: where reading goes on after a restart."""
    rejected_lines: set[tuple[str, int]] = field(default_factory=set)
    """(file key, offset), so that reading a chunk again refuses no line twice."""
    writing: threading.Lock = field(default_factory=threading.Lock)
    """Files and gRPC are taken in different threads."""

    def load(self) -> None:
        """Rebuilds what is known from the segments and the refused lines. Damaged ones raise; nothing is changed."""
        for path in _all_segments(self.home):
            for stored in segments.read_stored(path):
                self.ids.add(stored.signal.id)
                self._saw(stored.origin)
        for rejected in read_rejected(self.home):
            self.rejected_lines.add((rejected.origin.file, rejected.origin.offset))
            self._saw(rejected.origin)

    def offset(self, key: str) -> int:
        return self.resume.get(key, 0)

    def commit(self, chunk: intake.Chunk, now: float) -> Receipt:
        """Stores a chunk's lines, accepted and refused, durably; then moves the offset."""
        with self.writing:
            return self._commit(chunk, now)

    def _commit(self, chunk: intake.Chunk, now: float) -> Receipt:
        drop, millis = chunk.drop, int(now * 1000)
        defaults = Defaults(millis, drop.persona or self.default_persona, drop.domain or self.default_domain)
        accepted: list[Stored] = []
        rejected: list[Rejected] = []
        for line in chunk.lines:
            origin = Origin(file=drop.key, name=drop.path.name, offset=line.offset, chunk=chunk.start)
            try:
                if len(line.raw) > self.max_line_bytes:
                    raise InvalidInput(f"longer than the limit of {self.max_line_bytes} bytes (intake.max_line_bytes)")
                accepted.append(Stored(signal=parse(line.raw, defaults), received=millis, origin=origin))
            except InvalidInput as error:
                rejected.append(_rejected(str(error), drop.path, line, origin, millis))
        receipt = self._store(accepted, now) + self._reject(rejected, now)
        self.resume[drop.key] = chunk.end
        return receipt

    def accept(self, signals: Iterable[Signal], now: float) -> Receipt:
        """Stores signals that came another way than by file; on disk when this returns."""
        with self.writing:
            return self._store([Stored(signal=signal, received=int(now * 1000)) for signal in signals], now)

    def _store(self, stored: list[Stored], now: float) -> Receipt:
        new: dict[str, Stored] = {}
        for item in stored:
            if item.signal.id not in self.ids:
                new.setdefault(item.signal.id, item)
        groups: dict[tuple[str, str], list[Stored]] = {}
        for item in new.values():
            groups.setdefault((item.signal.persona_id, item.signal.domain), []).append(item)
        for (persona, domain), items in sorted(groups.items()):
            with files.locked(self.home.lock):  # no batch is sealed between choosing the segment and writing to it
                segment = self._open_segment(persona, domain, now)
                files.append(segment, b"".join(segments.encode(item) for item in items))
            self.ids.update(item.signal.id for item in items)
        return Receipt(len(new), len(stored) - len(new), 0, frozenset(groups))

    def _reject(self, rejected: list[Rejected], now: float) -> Receipt:
        new = [item for item in rejected if (item.origin.file, item.origin.offset) not in self.rejected_lines]
        if new:
            files.make_directory(self.home.rejected)
            path = self.home.rejected / f"{_day(now)}.jsonl"
            files.append(path, b"".join(item.model_dump_json().encode() + b"\n" for item in new))
            self.rejected_lines.update((item.origin.file, item.origin.offset) for item in new)
        return Receipt(rejected=len(new))

    def _open_segment(self, persona: str, domain: str, now: float) -> Path:
        directory = self.home.pending(persona, domain)
        files.make_directory(directory)
        day = _day(now)
        sealed = batches.sealed_segments(self.home, persona, domain)
        newest = max(batches.segment_names(self.home, persona, domain, day), default=f"{day}-000.jsonl")
        if (directory / newest).exists() and newest not in sealed:
            return directory / newest
        number = int(newest.removesuffix(".jsonl").rpartition("-")[2])
        return directory / f"{day}-{number + 1:03d}.jsonl"

    def _saw(self, origin: Origin | None) -> None:
        if origin is not None:
            self.resume[origin.file] = max(self.resume.get(origin.file, 0), origin.chunk)


@dataclass(frozen=True)
class Pending:
    """What waits in one persona's domain."""

    persona: str
    domain: str
    examples: int = 0
    weight: float = 0.0
    """Of the examples together."""
    evidence: int = 0
    """Signals without an answer to learn from."""
    oldest: float | None = None
    """When the first example still waiting arrived, in seconds since 1970."""


def pending(home: Home, persona: str, domain: str) -> Pending:
    directory = home.pending(persona, domain)
    found = Pending(persona, domain)
    for name in batches.pending_segments(home, persona, domain):
        for stored in segments.read_stored(directory / name):
            if not stored.signal.teaches:
                found = replace(found, evidence=found.evidence + 1)
                continue
            arrived = stored.received / 1000
            found = replace(
                found,
                examples=found.examples + 1,
                weight=found.weight + stored.signal.weight,
                oldest=min(arrived, found.oldest or arrived),
            )
    return found


def read_rejected(home: Home) -> Iterator[Rejected]:
    paths = sorted(home.rejected.glob("*.jsonl")) if home.rejected.is_dir() else []
    for path in paths:
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield Rejected.model_validate_json(line)


def _all_segments(home: Home) -> Iterator[Path]:
    for persona, domain in home.domains():
        places = (home.archive(persona, domain), home.set_aside(persona, domain))
        yield from sorted(home.pending(persona, domain).glob("*.jsonl"))
        yield from itertools.chain.from_iterable(sorted(place.glob("batch-*/*.jsonl")) for place in places)


def _rejected(reason: str, path: Path, line: intake.Line, origin: Origin, millis: int) -> Rejected:
    raw = base64.b64encode(line.raw).decode()
    number = intake.line_number(path, line.offset)
    return Rejected(reason=reason, file=str(path), line=number, origin=origin, raw=raw, time=millis)


def _day(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"

"""Tombstones: what stays where a retracted signal lay, and the record of why it was retracted.

    training-buffer/<persona>/<domain>/retracting/<key>.json   asked for, and not carried out yet
    training-buffer/<persona>/<domain>/retracted/<key>.json    carried out

A tombstone is a line of the same length in bytes: id, persona, domain, when it came and where from; the rest is blank.
So no offset, no mark of the ledger and no digest of a batch changes, and the same line dropped again is a duplicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from genome import files, segments
from genome.errors import Damaged
from genome.layout import Home
from genome.ledger import key
from genome.lines import Line
from genome.records import Record
from genome.segments import RETRACTED, Stored

_ENCODER = msgspec.json.Encoder()


class Retraction(Record):
    """Why a signal is gone."""

    signal: str
    persona: str
    domain: str
    reason: str
    batch: str | None = None
    """That counted it among its signals; None: no batch had it."""
    created: int
    """Milliseconds since 1970."""


def tombstone(line: bytes, stored: Stored) -> bytes:
    """What takes the place of ``line``, which holds ``stored``."""
    signal = stored.signal
    left = Line(id=signal.id, type=RETRACTED, persona_id=signal.persona_id, domain=signal.domain)
    data = _ENCODER.encode(Stored(left, stored.received, stored.origin))
    room = len(line) - len(data) - 1
    if room < 0:
        raise Damaged(
            f"the line of {signal.id} is too short for what must stay of it", "It was not written by this project"
        )
    return data + b" " * room + b"\n"


def needle(signal_id: str) -> bytes:
    """What every line of an id, or of one that begins like it, holds: most others need not be decoded."""
    return _ENCODER.encode(signal_id)[:-1]


def spans(data: bytes, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Where the lines begin and end that hold ``wanted``."""
    at = data.find(wanted)
    while at >= 0:
        end = data.find(b"\n", at) + 1 or len(data)
        yield data.rfind(b"\n", 0, at) + 1, end
        at = data.find(wanted, end)


def bury(path: Path, signal_id: str) -> None:
    """Leaves a tombstone of a signal in its segment, and its text in no file beside it. Again changes nothing."""
    wanted = needle(signal_id)

    def changed(line: bytes) -> bytes:
        stored = decoded(line) if wanted in line else None
        if stored is None or stored.signal.id != signal_id or stored.retracted:
            return line
        return tombstone(line, stored)

    if any(changed(line) is not line for line in segments.lines(path) if wanted in line):
        segments.rewrite(path, changed)
    if path.exists() and segments.packed(path).exists():
        files.remove(segments.packed(path))  # made of the segment as it was; the plain one counts
    files.remove_unfinished(path.parent)


def put(home: Home, retraction: Retraction) -> None:
    """The act by which a signal is retracted: all else follows from it, and can be done again."""
    retraction.write(home.retracting(retraction.persona, retraction.domain) / _name(retraction))


def carried_out(home: Home, retraction: Retraction) -> None:
    """Doing it again changes nothing."""
    name, names = _name(retraction), (retraction.persona, retraction.domain)
    if (home.retracting(*names) / name).exists():
        files.move(home.retracting(*names) / name, home.retracted(*names) / name)


def unfinished(home: Home, persona: str, domain: str) -> list[Retraction]:
    return [Retraction.read(path) for path in _records(home.retracting(persona, domain))]


def all_of(home: Home, persona: str, domain: str) -> list[Retraction]:
    """Every retraction of a domain, carried out or not."""
    done = [Retraction.read(path) for path in _records(home.retracted(persona, domain))]
    return [*done, *unfinished(home, persona, domain)]


def known(home: Home, persona: str, domain: str) -> frozenset[str]:
    """Names of a domain's retractions: other ones mean that another signal was retracted."""
    places = (home.retracting(persona, domain), home.retracted(persona, domain))
    return frozenset(path.name for place in places for path in _records(place))


def find(home: Home, persona: str, domain: str, signal_id: str) -> Retraction | None:
    name = f"{key(persona, domain, signal_id).hex()}.json"
    for place in (home.retracting(persona, domain), home.retracted(persona, domain)):
        if (place / name).exists():
            return Retraction.read(place / name)
    return None


def _name(retraction: Retraction) -> str:
    """An id may hold what no file's name can."""
    return f"{key(retraction.persona, retraction.domain, retraction.signal).hex()}.json"


def _records(place: Path) -> list[Path]:
    found = place.glob("*.json") if place.is_dir() else ()
    return sorted(path for path in found if not path.name.startswith(files.UNFINISHED))


def decoded(line: bytes) -> Stored | None:
    """What a line holds; None if it cannot be read."""
    try:
        return segments.decode(line)
    except ValueError:
        return None

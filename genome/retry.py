"""Refused lines, once more: those that can be read by now lie in the inbox again, each in a file of its place.

The daemon is the one writer of segments and of the days' files, so neither is touched here. First the lines are put
into the inbox, with a rename; then rejected/retried.jsonl says that they were. A crash in between means that the same
lines are put there again next time, and the buffer knows them by their ids: nothing is lost, and nothing doubled.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from genome import files, rejected
from genome.buffer import Buffer
from genome.config import Intake
from genome.errors import InvalidInput
from genome.layout import Home
from genome.lines import Line, Reader
from genome.rejected import Rejected, Retried

Places = dict[tuple[str, str], list[Rejected]]


@dataclass(frozen=True)
class Again:
    """What became of the refused lines."""

    lines: int
    """That lie in the inbox again …"""
    files: tuple[Path, ...]
    """… in these files."""
    kept: tuple[tuple[Rejected, str], ...]
    """The others, each with why it is refused now. They stay where they are."""


def retry(home: Home, limits: Intake, now: float) -> Again:
    """Gives every refused line that can be read by now to intake. One caller at a time: under the home's lock."""
    with files.locked(home.lock):
        for left in list(home.inbox.rglob(f"{files.UNFINISHED}retry-*")):  # a starting daemon leaves the inbox alone
            files.remove(left)
        places, kept = _sorted(home, limits, int(now * 1000))
        made = []
        for place, lines in sorted(places.items()):
            path = _put(home.inbox.joinpath(*place), b"".join(line.raw_bytes + b"\n" for line in lines), now)
            said = [Retried(line.identity, path.name, int(now * 1000)) for line in lines]
            files.append(home.retried, rejected.encode(said))
            made.append(path)
    return Again(sum(map(len, places.values())), tuple(made), tuple(kept))


def _sorted(home: Home, limits: Intake, millis: int) -> tuple[Places, list[tuple[Rejected, str]]]:
    """By whose signals they are: in that directory of the inbox they are theirs for a daemon of any settings."""
    buffer, reader = Buffer(home, limits), Reader()
    places: Places = {}
    kept: list[tuple[Rejected, str]] = []
    for refused in rejected.read(home):
        try:
            line = _read(refused, buffer, reader, millis)
            places.setdefault((line.persona_id, line.domain), []).append(refused)
        except InvalidInput as error:
            kept.append((refused, str(error)))
    return places, kept


def _read(refused: Rejected, buffer: Buffer, reader: Reader, millis: int) -> Line:
    raw, limit = refused.raw_bytes, buffer.limits.max_line_bytes
    if not refused.whole:
        raise InvalidInput(refused.reason)
    if len(raw) > limit:
        raise InvalidInput(f"longer than the limit of {limit} bytes (intake.max_line_bytes)")
    return reader.line(raw, buffer.defaults(millis, *_place(buffer.home, refused.file)))


def _place(home: Home, file: str) -> tuple[str, str]:
    """Persona and domain of the directory the file lay in; also where the home was moved since."""
    _, inbox, inside = str(Path(file).parent).rpartition(str(home.inbox.relative_to(home.root)))
    named = Path(inside.strip("/")).parts if inbox else ()
    persona, domain, *_ = *named, "", ""
    return persona, domain


def _put(directory: Path, data: bytes, now: float) -> Path:
    stamp, number = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H%M%S}", 1
    while not files.create(path := directory / f"retry-{stamp}-{number:03d}.jsonl", data):
        number += 1
    return path

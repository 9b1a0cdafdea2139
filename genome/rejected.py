"""Refused lines: kept as they were, with where they came from and why, in rejected/<day>.jsonl.

A line that was given to the inbox again (`genome.retry`) stays where it is, and rejected/retried.jsonl names it: the
days' files are the daemon's, which appends to them and goes by their lengths.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import xxhash

from genome import files
from genome.errors import Damaged, InvalidInput
from genome.layout import Home
from genome.lines import Reader
from genome.segments import Origin
from genome.signals import Defaults

_ENCODER = msgspec.json.Encoder()
T = TypeVar("T")


class Rejected(msgspec.Struct, gc=False):
    """One line of rejected/<day>.jsonl."""

    reason: str
    file: str
    """Path of the dropped file, as it was called when it was read."""
    line: int
    """From 1."""
    origin: Origin
    raw: str
    """The line as it was, base64; of one over the limit, its beginning."""
    time: int
    """Milliseconds since 1970."""
    whole: bool = True
    """Whether ``raw`` is all of the line."""

    @property
    def raw_bytes(self) -> bytes:
        return base64.b64decode(self.raw)

    @property
    def identity(self) -> tuple[str, int, int]:
        """Equal for one refused line that was read twice."""
        return self.origin.file, self.origin.offset, xxhash.xxh3_64_intdigest(self.raw.encode())


class Retried(msgspec.Struct, gc=False):
    """One line of rejected/retried.jsonl: a refused line that can be read by now, and lies in the inbox again."""

    identity: tuple[str, int, int]
    """`Rejected.identity`."""
    into: str
    """Name of the file it was put into: what its signal has as origin."""
    time: int
    """Milliseconds since 1970."""


def encode(lines: Iterable[Rejected | Retried]) -> bytes:
    return _ENCODER.encode_lines(lines)


def days(home: Home) -> list[Path]:
    """The files of refused lines, oldest first."""
    return sorted(home.rejected.glob("[0-9]*.jsonl")) if home.rejected.is_dir() else []


def read(home: Home) -> Iterator[Rejected]:
    """Every line that is refused still."""
    gone = retried(home)
    for path in days(home):
        yield from (rejected for _, rejected in scan(path, 0) if rejected.identity not in gone)


def retried(home: Home) -> set[tuple[str, int, int]]:
    """Identities of the lines that were given to the inbox again."""
    path = home.retried
    return {line.identity for _, line in _scan(path, 0, Retried)} if path.exists() else set()


def blank(home: Home, persona: str, domain: str, signal_id: str) -> None:
    """Takes a signal's text out of the lines that were refused, given to the inbox again, and became that signal.

    In place and to the same length: the days' files are the daemon's, which appends to them and goes by their lengths.
    The blank line is said to be retried first, so that it is never taken for one that is refused still.
    """
    gone, reader = retried(home), Reader()
    for path in days(home) if gone else ():
        start = 0
        for end, line in scan(path, 0):
            if line.identity in gone and _became(line, reader, (persona, domain, signal_id)):
                left = msgspec.structs.replace(line, raw="A" * len(line.raw))
                files.append(home.retried, encode([Retried(left.identity, "", line.time)]))
                with path.open("r+b") as stream:
                    stream.seek(start)
                    whole = stream.read(end - start)
                    stream.seek(start)
                    stream.write(whole.replace(line.raw.encode(), left.raw.encode()))
                files.sync_file(path)
            start = end


def _became(line: Rejected, reader: Reader, wanted: tuple[str, str, str]) -> bool:
    try:
        read = reader.line(line.raw_bytes, Defaults(0, *wanted[:2]))
    except InvalidInput:
        return False
    return (read.persona_id, read.domain, read.id) == wanted


def scan(path: Path, start: int, pass_over_damage: bool = False) -> Iterator[tuple[int, Rejected]]:
    """(offset of its end, line) of every line of a day from the byte ``start`` on. Damage as `segments.scan` has it."""
    return _scan(path, start, Rejected, pass_over_damage)


def _scan(path: Path, start: int, kind: type[T], pass_over_damage: bool = False) -> Iterator[tuple[int, T]]:
    with path.open("rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                found = msgspec.json.decode(line, type=kind)
            except ValueError as error:
                if pass_over_damage:
                    continue
                raise Damaged(f"{path}, the line at byte {start - len(line)} cannot be read: {error}") from error
            yield start, found

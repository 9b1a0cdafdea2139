"""Refused lines: kept as they were, with where they came from and why, in rejected/<day>.jsonl."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import xxhash

from genome.errors import Damaged
from genome.layout import Home
from genome.segments import Origin

_ENCODER = msgspec.json.Encoder()


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

    @property
    def raw_bytes(self) -> bytes:
        return base64.b64decode(self.raw)

    @property
    def identity(self) -> tuple[str, int, int]:
        """Equal for one refused line that was read twice."""
        return self.origin.file, self.origin.offset, xxhash.xxh3_64_intdigest(self.raw.encode())


def encode(lines: Iterable[Rejected]) -> bytes:
    return _ENCODER.encode_lines(lines)


def days(home: Home) -> list[Path]:
    """The files of refused lines, oldest first."""
    return sorted(home.rejected.glob("[0-9]*.jsonl")) if home.rejected.is_dir() else []


def read(home: Home) -> Iterator[Rejected]:
    for path in days(home):
        yield from (rejected for _, rejected in scan(path, 0))


def scan(path: Path, start: int) -> Iterator[tuple[int, Rejected]]:
    with path.open("rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                yield start, msgspec.json.decode(line, type=Rejected)
            except ValueError as error:
                raise Damaged(f"{path}, the line at byte {start - len(line)} cannot be read: {error}") from error

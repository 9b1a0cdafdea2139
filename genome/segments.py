"""Segments: append-only files of accepted signals, one JSON object a line, in the order of arrival.

Each line is a `Stored`: the canonical signal, and where it came from. The source's offset lies with the signal it
belongs to and nowhere else, so after a crash both are there or neither is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from genome.errors import Damaged
from genome.signals import Signal


class Origin(BaseModel):
    """The line of a dropped file that a record came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """`genome.intake.Drop.key`."""
    name: str
    """Of the file when it was read, for people."""
    offset: int
    """Of the line's first byte."""
    chunk: int
    """Where the chunk it was committed with begins. All before the newest chunk's beginning is on disk."""


class Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    signal: Signal
    received: int
    """Milliseconds since 1970."""
    origin: Origin | None = None
    """None: it came over gRPC."""


def encode(stored: Stored) -> bytes:
    return stored.model_dump_json(exclude_none=True).encode() + b"\n"


def read_stored(path: Path) -> Iterator[Stored]:
    """Every record of a segment. A last line without newline was never acknowledged and is passed over."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Stored.model_validate_json(line)
            except ValidationError as error:
                raise Damaged(
                    f"{path}, line {number} cannot be read: {error.errors()[0]['msg']}",
                    "Mend or remove that line; the others are whole",
                ) from error


def read(path: Path) -> Iterator[Signal]:
    return (stored.signal for stored in read_stored(path))


def read_all(paths: Iterable[Path]) -> Iterator[Signal]:
    for path in paths:
        yield from read(path)

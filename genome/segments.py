"""Segments: append-only files of accepted signals, one JSON object a line, in the order of arrival.

Each line is a `Stored`: the canonical signal, and where it came from. The source's offset lies with the signal it
belongs to and nowhere else, so after a crash both are there or neither is. `read` gives signals as the model of record
has them, `scan` the same lines as structs, for whoever goes through many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from genome.errors import Damaged
from genome.lines import Line
from genome.signals import Signal


class Origin(msgspec.Struct, gc=False):
    """The line of a dropped file that a record came from."""

    file: str
    """`genome.intake.Drop.key`."""
    name: str
    """Of the file when it was read, for people."""
    offset: int
    """Of the line's first byte."""
    chunk: int
    """Where, in that file, what was committed together begins. All before the newest such beginning is on disk."""
    check: int = 0
    """`genome.intake.check` of that beginning."""


class Stored(msgspec.Struct, omit_defaults=True, gc=False):
    """One line of a segment."""

    signal: Line
    received: int
    """Milliseconds since 1970."""
    origin: Origin | None = None
    """None: it came over gRPC."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore")

    signal: Signal


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Stored)


def encode(stored: Iterable[Stored]) -> bytes:
    return _ENCODER.encode_lines(stored)


def scan(path: Path, start: int = 0) -> Iterator[tuple[int, Stored]]:
    """(offset of its end, record) of every line from the byte ``start`` on.

    A last line without newline was never acknowledged and is passed over.
    """
    end = start
    for line in _whole_lines(path, start):
        end += len(line)
        try:
            yield end, _DECODER.decode(line)
        except ValueError as error:
            raise _damaged(path, end - len(line), str(error)) from error


def scan_all(paths: Iterable[Path]) -> Iterator[Stored]:
    for path in paths:
        for _, stored in scan(path):
            yield stored


def read(path: Path) -> Iterator[Signal]:
    offset = 0
    for line in _whole_lines(path, 0):
        try:
            yield _Record.model_validate_json(line).signal
        except ValidationError as error:
            raise _damaged(path, offset, error.errors()[0]["msg"]) from error
        offset += len(line)


def _whole_lines(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(start)
        for line in stream:
            if line.endswith(b"\n"):
                yield line


def _damaged(path: Path, offset: int, reason: str) -> Damaged:
    return Damaged(
        f"{path}, the line at byte {offset} cannot be read: {reason}",
        "Mend or remove that line; the others are whole. genome fsck tells what else is wrong",
    )

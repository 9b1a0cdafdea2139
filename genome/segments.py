"""Segments: append-only files of accepted signals, one JSON object a line, in the order of arrival.

Each line is a `Stored`: the canonical signal, and where it came from. The source's offset lies with the signal it
belongs to and nowhere else, so after a crash both are there or neither is. `read` gives signals as the model of record
has them, `scan` the same lines as structs, for whoever goes through many.

A segment of an ended batch may lie compressed, as `<segment>.zst`: it keeps its path in every call here, and offsets
count what is inside. Where both files are there a crash fell between, and the plain one counts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec
import xxhash
import zstandard
from pydantic import BaseModel, ConfigDict, ValidationError

from genome import files
from genome.errors import Damaged
from genome.lines import Line
from genome.signals import Signal

PACKED = ".zst"
LEVEL = 3
"""Of zstd: signals shrink to about a quarter at some hundred MB a second; higher levels gain little."""
BLOCK_BYTES = 1 << 20
FRAME_HEAD_BYTES = 18
RETRACTED = "retracted"
"""In place of a signal's type: what it said is gone."""

T = TypeVar("T")


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

    @property
    def retracted(self) -> bool:
        """Whether only a tombstone is left of it (`genome.tombstones`)."""
        return self.signal.type == RETRACTED


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore")

    signal: Signal


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Stored)
_MARK = f'"{RETRACTED}"'.encode()
"""Every tombstone holds it, and few other lines."""


def encode(stored: Iterable[Stored]) -> bytes:
    return _ENCODER.encode_lines(stored)


def scan(path: Path, start: int = 0, pass_over_damage: bool = False) -> Iterator[tuple[int, Stored]]:
    """(offset of its end, record) of every line from the byte ``start`` on.

    A last line without newline was never acknowledged and is passed over. A line that cannot be read raises Damaged,
    or is passed over by whoever only wants to know what is there: it costs itself, and not the intake of all others.
    """
    return scan_as(_DECODER, path, start, pass_over_damage)


def scan_as(
    decoder: msgspec.json.Decoder[T], path: Path, start: int, pass_over_damage: bool
) -> Iterator[tuple[int, T]]:
    """The same, of what ``decoder`` takes from a line."""
    end = start
    for line in _whole_lines(path, start):
        end += len(line)
        try:
            found = decoder.decode(line)
        except ValueError as error:
            if pass_over_damage:
                continue
            raise _damaged(path, end - len(line), str(error)) from error
        yield end, found


def examine(path: Path, thoroughly: bool) -> Iterator[tuple[int, Stored | str]]:
    """(offset of its end, record or why it cannot be read) of every whole line, for whoever looks for damage.

    ``thoroughly``: by the model of record too, which training reads with.
    """
    end = 0
    try:
        for line in _whole_lines(path, 0):
            end += len(line)
            try:
                stored = _DECODER.decode(line)
                if thoroughly and not stored.retracted:
                    _Record.model_validate_json(line)
                yield end, stored if stored.signal.id else "it has no id"
            except ValidationError as error:
                yield end, error.errors()[0]["msg"]
            except ValueError as error:
                yield end, str(error)
    except Damaged as error:
        yield end, str(error)


def scan_all(paths: Iterable[Path]) -> Iterator[Stored]:
    for path in paths:
        for _, stored in scan(path):
            yield stored


def lines(path: Path) -> Iterator[bytes]:
    """Every whole line as it lies there."""
    return _whole_lines(path, 0)


def decode(line: bytes) -> Stored:
    """One line. Raises ValueError if it cannot be read."""
    return _DECODER.decode(line)


def read(path: Path) -> Iterator[Signal]:
    """Every signal that was not retracted."""
    offset = 0
    for line in _whole_lines(path, 0):
        try:
            if not _is_tombstone(line):
                yield _Record.model_validate_json(line).signal
        except ValidationError as error:
            raise _damaged(path, offset, error.errors()[0]["msg"]) from error
        offset += len(line)


def packed(path: Path) -> Path:
    """Where a segment lies when it is compressed."""
    return path.with_name(path.name + PACKED)


def exists(path: Path) -> bool:
    return path.exists() or packed(path).exists()


def ends_a_line(path: Path, offset: int) -> bool:
    """Whether a line ends at ``offset`` of what a segment or another file of lines holds."""
    with _opened(path) as stream:
        stream.seek(offset - 1)
        return stream.read(1) == b"\n"


def listed(directory: Path) -> list[Path]:
    """Every segment in a directory, whichever way it lies there."""
    plain = set(directory.glob("*.jsonl"))
    return sorted(plain | {path.with_suffix("") for path in directory.glob(f"*.jsonl{PACKED}")})


def sync(path: Path) -> None:
    try:
        files.sync_file(path)
    except FileNotFoundError:
        files.sync_file(packed(path))


def pack(path: Path) -> None:
    """Compresses a segment that no longer changes. It counts once `shed` has removed the plain one."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with path.open("rb") as stream:
        files.write(packed(path), compressor.read_to_iter(stream, size=path.stat().st_size))


def restore(path: Path) -> None:
    """Makes a segment plain again, so that it may lie where segments are appended to. Plain already is fine."""
    if packed(path).exists():
        if not path.exists():
            with _unpacked(path) as stream:
                files.write(path, iter(lambda: stream.read(BLOCK_BYTES), b""))
            files.seal(path)
        files.remove(packed(path))


def shed(path: Path) -> None:
    """Removes the plain file of a segment if its compressed one, read back, holds the same. Under the home's lock."""
    with path.open("rb") as stream, _unpacked(path) as again:
        same = _fingerprint(stream) == _fingerprint(again)
    if not same:
        raise Damaged(f"{packed(path)} does not hold what {path.name} does", "The plain file counts and stays")
    files.remove(path)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Puts a segment in place of itself, sealed, with ``change`` made to every line, whose length it keeps.

    A torn last line, which was never acknowledged, is left out. Under the home's lock.
    """
    if path.exists():
        files.write(path, _joined(change(line) for line in _whole_lines(path, 0)), files.SEALED)
        return
    with packed(path).open("rb") as stream:
        size = zstandard.get_frame_parameters(stream.read(FRAME_HEAD_BYTES)).content_size
    files.write(packed(path), _compressed(_joined(change(line) for line in _whole_lines(path, 0)), size))


def _compressed(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj(size=size)
    for block in blocks:
        yield compressor.compress(block)
    yield compressor.flush()


def _joined(found: Iterable[bytes]) -> Iterator[bytes]:
    """Lines as blocks of about BLOCK_BYTES."""
    block = bytearray()
    for line in found:
        block += line
        if len(block) >= BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _is_tombstone(line: bytes) -> bool:
    try:
        return _MARK in line and _DECODER.decode(line).retracted
    except ValueError:
        return False  # the model of record says what is wrong with it


def _fingerprint(stream: BinaryIO) -> tuple[int, bytes]:
    length, digest = 0, xxhash.xxh3_128()
    while block := stream.read(BLOCK_BYTES):
        length += len(block)
        digest.update(block)
    return length, digest.digest()


class _Unpacking(io.RawIOBase):
    """What a compressed segment holds. Raises Damaged where it is not all there."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        try:
            self._left = zstandard.get_frame_parameters(stream.read(FRAME_HEAD_BYTES)).content_size
        except zstandard.ZstdError as error:
            raise self._damaged(str(error)) from error
        stream.seek(0)
        self._reader = zstandard.ZstdDecompressor().stream_reader(stream)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._reader.readinto(buffer)
        except zstandard.ZstdError as error:
            raise self._damaged(str(error)) from error
        self._left -= count
        if not count and self._left:
            raise self._damaged("it ends too early")
        return count

    def _damaged(self, why: str) -> Damaged:
        return Damaged(f"{self._path} cannot be unpacked: {why}", "Bring it back from a copy of the home")


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with packed(path).open("rb") as stream:
        yield cast(BinaryIO, io.BufferedReader(_Unpacking(packed(path), stream), BLOCK_BYTES))


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        if not packed(path).exists():
            raise
    return _unpacked(path)


def _whole_lines(path: Path, start: int) -> Iterator[bytes]:
    with _opened(path) as stream:
        if stream.seekable():
            stream.seek(start)
            start = 0
        while start and (passed := len(stream.read(min(BLOCK_BYTES, start)))):
            start -= passed
        for line in stream:
            if line.endswith(b"\n"):
                yield line


def _damaged(path: Path, offset: int, reason: str) -> Damaged:
    return Damaged(
        f"{path}, the line at byte {offset} cannot be read: {reason}",
        "Mend or remove that line; the others are whole. genome fsck tells what else is wrong",
    )

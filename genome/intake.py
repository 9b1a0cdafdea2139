"""From the inbox to lines: which files are taken, how far they were read, what each line's place tells.

A file is known by device, inode and a hash of its first line, so a rename changes nothing and a replacement is seen.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genome.layout import NAME, Home

CHUNK_BYTES = 4 << 20
HEAD_BYTES = 1 << 12
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Drop:
    """A regular file in the drop zone that holds at least one whole line, or is still enough to be taken as it is."""

    path: Path
    key: str
    """``<device>-<inode>-<hash of the first line>``."""
    size: int
    changed: float
    """Seconds since 1970 of the last change."""
    persona: str
    domain: str
    """From ``inbox/<persona>/<domain>/``; empty elsewhere."""


@dataclass(frozen=True)
class Line:
    offset: int
    """Of its first byte in the file."""
    raw: bytes
    """Without its end of line."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive whole lines of one file, committed together."""

    drop: Drop
    start: int
    end: int
    """Offset after the last byte taken."""
    lines: tuple[Line, ...]


def drops(home: Home, now: float, settle_seconds: float) -> Iterator[Drop]:
    """What lies in the drop zone: inbox/**.jsonl and *.jsonl at the top of training-buffer/. Never follows a link."""
    for folder, persona, domain in _folders(home):
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.endswith(".jsonl") and not entry.name.startswith("."):
                drop = _look(Path(entry.path), persona, domain, now, settle_seconds)
                if drop is not None:
                    yield drop


def read_chunk(drop: Drop, start: int, now: float, settle_seconds: float, max_line_bytes: int) -> Chunk | None:
    """Whole lines from ``start`` on, about 4 MiB of them; None if there are none yet.

    A last line without newline counts as whole once the file has been still for ``settle_seconds``. Of a line longer
    than ``max_line_bytes`` only the beginning is kept: the caller rejects it by its length.
    """
    descriptor = os.open(drop.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if _key(descriptor, os.fstat(descriptor)) != drop.key:
            return None  # replaced since it was looked at: the next scan sees the new one
        stream.seek(start)
        data = stream.read(max(CHUNK_BYTES, max_line_bytes + 2))
        size = os.fstat(descriptor).st_size
    end = data.rfind(b"\n") + 1
    whole_file = start + len(data) == size
    if end == 0 and not whole_file:
        return _over_long(drop, start, data, max_line_bytes)
    if end < len(data) and whole_file and now - drop.changed >= settle_seconds:
        end = len(data)
    if end == 0:
        return None
    return Chunk(drop, start, start + end, tuple(_lines(data[:end], start)))


def line_number(path: Path, offset: int) -> int:
    """Which line of a file begins at ``offset``, from 1. Reads all before it: for the rare line that is refused."""
    with path.open("rb") as stream:
        return 1 + sum(
            stream.read(min(CHUNK_BYTES, offset - start)).count(b"\n") for start in range(0, offset, CHUNK_BYTES)
        )


def _over_long(drop: Drop, start: int, data: bytes, max_line_bytes: int) -> Chunk | None:
    """One line longer than a chunk: found to its end without being held in memory."""
    with drop.path.open("rb") as stream:
        stream.seek(start + len(data))
        end = start + len(data)
        while block := stream.read(CHUNK_BYTES):
            newline = block.find(b"\n")
            if newline >= 0:
                line = Line(start, data[: max_line_bytes + 1])
                return Chunk(drop, start, end + newline + 1, (line,))
            end += len(block)
    return None


def _lines(data: bytes, start: int) -> Iterator[Line]:
    offset = 0
    for raw in data.split(b"\n"):
        text = raw.removesuffix(b"\r")
        if start + offset == 0:
            text = text.removeprefix(BYTE_ORDER_MARK)
        if text.strip():
            yield Line(start + offset, text)
        offset += len(raw) + 1


def _folders(home: Home) -> Iterator[tuple[Path, str, str]]:
    yield home.buffer, "", ""
    yield home.inbox, "", ""
    for persona in _named_folders(home.inbox):
        yield persona, persona.name, ""
        for domain in _named_folders(persona):
            yield domain, persona.name, domain.name


def _named_folders(parent: Path) -> list[Path]:
    try:
        entries = [entry for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(Path(entry.path) for entry in entries if NAME.fullmatch(entry.name))


def _look(path: Path, persona: str, domain: str, now: float, settle_seconds: float) -> Drop | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return None
        head = os.pread(descriptor, HEAD_BYTES, 0)
        settled = now - status.st_mtime >= settle_seconds
        if b"\n" not in head and len(head) < HEAD_BYTES and not settled:
            return None  # its first line, which names it, is still being written
        key = _key(descriptor, status)
        return Drop(path, key, status.st_size, status.st_mtime, persona, domain)
    finally:
        os.close(descriptor)


def _key(descriptor: int, status: os.stat_result) -> str:
    first_line = os.pread(descriptor, HEAD_BYTES, 0).split(b"\n", 1)[0]
    return f"{status.st_dev:x}-{status.st_ino:x}-{hashlib.sha256(first_line).hexdigest()[:12]}"

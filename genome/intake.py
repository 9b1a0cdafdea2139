"""From the drop zone to lines: which files are taken, how far they were read, what each line's place tells.

A file is known by device, inode and a hash of its first line, so a rename changes nothing and a replacement is seen.
Inodes are given again and first lines repeat, so an offset goes with a hash of what lies before it, and is believed
only where that still agrees. Plain files may grow for weeks; compressed ones (`.jsonl.gz`, `.jsonl.zst`) are moved in
whole, are known by a hash of all they hold, and their offsets count what is inside.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import xxhash

from genome import packed
from genome.layout import NAME, Home

CHUNK_BYTES = 4 << 20
HEAD_BYTES = 1 << 12
CHECK_BYTES = 1 << 12
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PLAIN = ".jsonl"
RETRY_SECONDS = 5.0
"""After which what could not be read, or had no room, is tried again: nothing tells when it can."""
GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO)
"""How opening fails where a file was a moment ago: nothing there, a link, or a socket."""
Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes and time of the last change in nanoseconds: while it is the same, so is the file."""


@dataclass(frozen=True)
class Drop:
    """A regular file in the drop zone that holds at least one whole line, or is still enough to be taken as it is."""

    path: Path
    key: str
    """``<device>-<inode>-<hash of the first line>``; of a compressed file, of all of it."""
    stamp: Stamp
    persona: str
    domain: str
    """From ``inbox/<persona>/<domain>/``; empty elsewhere."""

    @property
    def size(self) -> int:
        return self.stamp[2]

    @property
    def changed(self) -> float:
        """Seconds since 1970 of the last change."""
        return self.stamp[3] / 1e9

    @property
    def shown(self) -> str:
        """Its path for people and records. A name may be bytes that are no text, and no record can hold those."""
        return os.fsencode(self.path).decode(errors="replace")

    @property
    def packed(self) -> bool:
        return self.path.name.endswith(packed.SUFFIXES)


class Taken(NamedTuple):
    """How far a file was read."""

    offset: int
    check: int
    """`check` of that offset: what lies before it, hashed."""


NOTHING = Taken(0, 0)


@dataclass(frozen=True)
class Chunk:
    """Consecutive whole lines of one file, committed together."""

    drop: Drop
    start: Taken
    end: Taken
    data: bytes
    """What lies between; of one line that is over the limit, its beginning."""
    line: int | None = None
    """Number of its first line, from 1, where reading began at the file's beginning."""
    damage: str = ""
    """Why the rest of a compressed file, of which ``data`` is the beginning, cannot be read. It ends where it starts:
    should the file be completed, reading goes on here; while it is not, the refusal is known by its place."""


@dataclass
class Reading:
    """One pass over what a file holds beyond what was ``taken``."""

    drop: Drop
    taken: Taken
    settled: bool
    """The file was still for long enough: its last line is whole though it has no newline."""
    max_line_bytes: int
    waits: bool = False
    """Whether something is left that was not yet to be taken."""
    ended: bool = False
    """Whether the file's end was reached."""
    trouble: OSError | None = None
    """Why it was not."""
    damaged: bool = False
    """Whether a compressed file could not be read to its end, and will not change by itself."""
    lines: int | None = field(init=False)
    """Before what is read next; None: not counted."""

    def __post_init__(self) -> None:
        self.lines = 0 if self.taken.offset == 0 else None

    def chunks(self) -> Iterator[Chunk]:
        """Whole lines, about 4 MiB of them at a time. Of one over the limit only the beginning is kept."""
        rest, passed = b"", 0  # of the line under way: what is kept, and how much more was read
        try:
            for block in _blocks(self.drop, self.taken.offset):
                if passed:
                    newline = block.find(b"\n") + 1
                    if not newline:
                        passed += len(block)
                        continue
                    yield self._chunk(rest, len(rest) + passed + newline)
                    rest, passed, block = b"", 0, block[newline:]
                rest += block
                end = rest.rfind(b"\n") + 1
                if end:
                    whole, rest = rest[:end], rest[end:]
                    yield self._chunk(whole, end)
                if len(rest) > self.max_line_bytes:
                    passed = len(rest) - self.max_line_bytes - 1
                    rest = rest[: self.max_line_bytes + 1]
        except packed.ERRORS as error:
            self.ended = True
            if self._still():
                self.damaged = True
                yield self._chunk(rest, 0, f"the file is damaged from here on ({error})")
            else:
                self.waits = True  # the rest may still be on its way
            return
        except OSError as error:
            self.trouble = error
            return
        self.ended = True
        if rest and self._still():
            yield self._chunk(rest, len(rest) + passed)
        elif rest:
            self.waits = True

    def _still(self) -> bool:
        """Whether what was read to its end is all there will be: nothing was written while it was read, either."""
        return self.settled and stamp(self.drop.path) == self.drop.stamp

    def _chunk(self, data: bytes, length: int, damage: str = "") -> Chunk:
        first = None if self.lines is None else self.lines + 1
        end = self.taken.offset + length
        made = Chunk(self.drop, self.taken, Taken(end, check(self.drop, end) or 0), data, first, damage)
        if self.lines is not None:
            self.lines += max(1, data.count(b"\n"))
        self.taken = made.end
        return made


@dataclass(frozen=True)
class Scan:
    """How the drop zone is looked at."""

    now: float
    settle_seconds: float
    unchanged: Callable[[str, Stamp], bool] = lambda path, stamp: False
    """By path and stamp: whether a file need not be opened."""
    unreadable: list[Path] = field(default_factory=list)
    """Files this process may not open."""
    later: list[float] = field(default_factory=list)
    """Seconds since 1970 at which something is to be looked at again, though nothing may tell of it."""

    def failed(self, path: Path, error: OSError) -> None:
        """``path`` cannot be read now. Of its rights the system tells when they change; of nothing else."""
        self.unreadable.append(path)
        if not isinstance(error, PermissionError):
            self.later.append(self.now + RETRY_SECONDS)


def is_drop(name: str) -> bool:
    """Whether a file of that name in the drop zone is data."""
    return name.endswith((PLAIN, *packed.SUFFIXES)) and not name.startswith(".")


def drops(home: Home, scan: Scan) -> Iterator[Drop]:
    """What lies in the drop zone: inbox/** and the top of training-buffer/. Never follows a link."""
    for folder, persona, domain in _folders(home, scan):
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            scan.failed(folder, error)
            continue
        for entry in entries:
            if is_drop(entry.name):
                try:
                    status = entry.stat(follow_symlinks=False)
                    # Opening a device or a pipe already does something to it.
                    if not stat.S_ISREG(status.st_mode) or scan.unchanged(entry.path, _stamp(status)):
                        continue
                    drop = _look(Path(entry.path), persona, domain, scan)
                except FileNotFoundError:
                    continue  # gone meanwhile
                except OSError as error:
                    scan.failed(Path(entry.path), error)
                    continue
                if drop is not None:
                    yield drop


def line_number(drop: Drop, offset: int, known: tuple[int, int] = (0, 1)) -> int:
    """Which line of a file begins at ``offset``, from 1. Reads what lies between it and a place that is ``known``."""
    seen, number = known
    for block in _blocks(drop, seen):
        number += block[: max(0, offset - seen)].count(b"\n")
        seen += len(block)
        if seen >= offset:
            break
    return number


def check(drop: Drop, offset: int) -> int | None:
    """A hash of up to 4 KiB before ``offset``: another one says that the file was rewritten. 0 for compressed ones.

    None: it cannot be told, since the file is gone or cannot be read.
    """
    if drop.packed or offset == 0:
        return 0
    with suppress(OSError), _opened(drop) as stream:
        if stream is not None:
            start = max(0, offset - CHECK_BYTES)
            return xxhash.xxh3_64_intdigest(os.pread(stream.fileno(), offset - start, start)) >> 1
    return None


def stamp(path: Path) -> Stamp | None:
    """Of the file as it is now; None if it is gone."""
    try:
        return _stamp(path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None


@contextmanager
def _opened(drop: Drop) -> Iterator[BinaryIO | None]:
    """None if it is gone, or another file has its place by now."""
    descriptor = _open(drop.path)
    if descriptor is None:
        yield None
        return
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        same = stat.S_ISREG(status.st_mode) and _key(descriptor, status, drop.packed) == drop.key
        yield stream if same else None


def _open(path: Path) -> int | None:
    """None if it is gone."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def _blocks(drop: Drop, offset: int) -> Iterator[bytes]:
    """What the file holds from ``offset`` on; nothing if it was replaced: the next scan sees the new one."""
    with _opened(drop) as stream:
        if stream is None:
            return
        if not drop.packed:
            stream.seek(offset)
            while block := stream.read(CHUNK_BYTES):
                yield block
            return
        for block in packed.blocks(stream, drop.path.name):
            if offset < len(block):
                yield block[offset:]
            offset = max(0, offset - len(block))


def _folders(home: Home, scan: Scan) -> Iterator[tuple[Path, str, str]]:
    yield home.buffer, "", ""
    yield home.inbox, "", ""
    for persona in _named_folders(home.inbox, scan):
        yield persona, persona.name, ""
        for domain in _named_folders(persona, scan):
            yield domain, persona.name, domain.name


def _named_folders(parent: Path, scan: Scan) -> list[Path]:
    try:
        entries = [entry for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            scan.failed(parent, error)
        return []
    return sorted(Path(entry.path) for entry in entries if NAME.fullmatch(entry.name))


def _look(path: Path, persona: str, domain: str, scan: Scan) -> Drop | None:
    """None: no data, nothing in it yet, or its beginning, which names it, is still being written."""
    descriptor = _open(path)
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return None
        drop = Drop(path, "", _stamp(status), persona, domain)
        head = os.pread(descriptor, HEAD_BYTES, 0)
        if drop.packed:  # all of it names it; whether a small one is whole can be seen at once
            named = len(head) < HEAD_BYTES and packed.is_whole(head, path.name)
        else:
            named = b"\n" in head or len(head) == HEAD_BYTES
        if not named and scan.now - drop.changed < scan.settle_seconds:
            scan.later.append(drop.changed + scan.settle_seconds)
            return None
        return replace(drop, key=_key(descriptor, status, drop.packed))
    finally:
        os.close(descriptor)


def _key(descriptor: int, status: os.stat_result, compressed: bool) -> str:
    if compressed:
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        digest = hashlib.sha256(os.pread(descriptor, HEAD_BYTES, 0).split(b"\n", 1)[0])
    return f"{status.st_dev:x}-{status.st_ino:x}-{digest.hexdigest()[:12]}"


def _stamp(status: os.stat_result) -> Stamp:
    # A time of change that lies in the future was set by hand, or by another machine's clock: ctime is this one's.
    return status.st_dev, status.st_ino, status.st_size, min(status.st_mtime_ns, status.st_ctime_ns)

"""Every act on disk that must survive a crash. The only module that writes, syncs, renames, removes or locks.

A file or directory is finished aside, synced and renamed into place, so that existing means complete. What a file
system may still lose: a rename is durable only once its directory is synced, which every function here does before
it returns. Every act is one call of `os`, named here, so that a test can stop the process, fail the call or lose the
write at each of them (tests/torture/).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from genome.errors import Busy, DiskFull

UNFINISHED = ".unfinished-"
"""Prefix of names being made. Whatever bears it after a crash is rubbish and is removed by `remove_unfinished`."""
SEALED = 0o400
"""Mode of a file that no longer grows."""


def sync(descriptor: int) -> None:
    """Returns once the file's content is on the medium; on macOS plain fsync stops at the drive's cache."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


_owed: set[Path] = set()
"""Directories whose sync failed after something was done in them. What was done can be seen, so whoever tries again
finds it done: nothing more is promised before they are synced."""


def sync_directory(directory: Path) -> None:
    """Makes renames, creations and removals in ``directory`` durable, and those whose sync failed before."""
    for owed in list(_owed - {directory}):
        with suppress(FileNotFoundError):
            _sync_directory(owed)
        _owed.discard(owed)
    try:
        _sync_directory(directory)
    except OSError:
        _owed.add(directory)
        raise
    _owed.discard(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Creates ``directory`` and what is missing above it, each synced into its parent. Mode 0700: it is private."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for made in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(made, 0o700)
        sync_directory(made.parent)


def append(path: Path, data: bytes) -> None:
    """Appends whole lines and returns once they are on disk. A torn tail from an earlier crash is cut off first.

    After an error the file may hold some of them: only reading it again tells.
    """
    with room(path):
        descriptor = _open_lines(path)
        try:
            _append(descriptor, data)
        finally:
            os.close(descriptor)


class Appender:
    """An append-only file of lines, kept open. `seal` ends it for every writer that has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with room(path):
            self._descriptor = _open_lines(path)

    @property
    def sealed(self) -> bool:
        """Whether no line may be added any more. Also once it was removed."""
        status = os.fstat(self._descriptor)
        return not status.st_mode & stat.S_IWUSR or status.st_nlink == 0

    def append(self, data: bytes) -> int:
        """As `append`; returns the file's length in bytes."""
        with room(self.path):
            return _append(self._descriptor, data)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def cut(path: Path, end: int) -> None:
    """Takes off what lies beyond ``end``, durably, unless the file was sealed with it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size > end and not is_sealed(path):
            os.ftruncate(descriptor, end)
            sync(descriptor)
    finally:
        os.close(descriptor)


def seal(path: Path) -> None:
    """Takes the right to write from an append-only file, durably: `Appender.sealed` sees it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, SEALED)
        sync(descriptor)
    finally:
        os.close(descriptor)


def is_sealed(path: Path) -> bool:
    return not os.stat(path).st_mode & stat.S_IWUSR


def cut_torn_line(path: Path) -> None:
    """Removes what follows the last newline of an append-only file, durably: it was never acknowledged."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _cut_torn_line(descriptor)
        sync(descriptor)
    finally:
        os.close(descriptor)


def put(path: Path, data: bytes) -> None:
    """Writes a file inside an unfinished directory, which is synced with all that is in it."""
    with room(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)


def write(path: Path, data: bytes | Iterable[bytes], mode: int = 0o600) -> None:
    """Puts a whole file in place of whatever is there, durably and in one step. ``data``: or blocks of it.

    Whoever has the old one open as `Appender` sees that it was sealed.
    """
    aside = _write_aside(path, [data] if isinstance(data, bytes) else data, mode)
    os.replace(aside, path)
    sync_directory(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Puts a whole file in place if nothing is there; False if something is. In one step, also between processes."""
    aside = _write_aside(path, [data])
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(aside)
    sync_directory(path.parent)
    return True


@contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """Yields an empty directory to fill; on a clean exit everything in it is synced and it is renamed to ``final``.

    Raises FileExistsError if ``final`` exists by then; on any error the unfinished directory is removed.
    """
    make_directory(final.parent)
    aside = final.parent / f"{UNFINISHED}{final.name}"
    if aside.exists():
        _remove_tree(aside)
    os.mkdir(aside, 0o700)
    try:
        with room(final):
            yield aside
            sync_tree(aside)
        if final.exists():
            raise FileExistsError(f"{final} exists already")
        os.rename(aside, final)
    except BaseException:
        with suppress(OSError):
            _remove_tree(aside)
        raise
    sync_directory(final.parent)


def sync_file(path: Path) -> None:
    """Makes what a file holds, and its name, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def free_bytes(directory: Path) -> int:
    """Of the disk ``directory`` lies on, for this process."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def sync_tree(directory: Path) -> None:
    """Syncs every file and directory below ``directory``, and itself."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(folder))


def sync_found(root: Path, passed_over: Collection[Path] = ()) -> None:
    """Syncs all that lies below ``root``: what a process wrote that was killed can be read, and is not durable by that.

    Whoever starts calls it before believing what it finds. Only files and directories are touched; a home of 10,000
    files that are synced already takes half a second.
    """
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if Path(folder, name) not in passed_over]
        for path in (*(os.path.join(folder, name) for name in names), folder):
            with suppress(FileNotFoundError):  # another process removes what it made aside
                mode = os.lstat(path).st_mode
                if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(descriptor)  # once for all of it where fsync stops at the drive's cache
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Renames within one file system, durably on both sides."""
    make_directory(target.parent)
    os.rename(source, target)
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def remove(path: Path) -> None:
    """Removes a file or a directory with all below it, durably. Nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        # A half-removed directory must not look whole: it gets a rubbish name first.
        rubbish = path
        if not path.name.startswith(UNFINISHED):
            rubbish = path.parent / f"{UNFINISHED}{path.name}"
            if rubbish.exists():
                _remove_tree(rubbish)
            os.rename(path, rubbish)
            sync_directory(path.parent)  # else a power cut may leave it under its name, half removed
        _remove_tree(rubbish)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
    sync_directory(path.parent)


def remove_all(paths: Iterable[Path]) -> None:
    """Removes files, durably. Those that are gone are fine."""
    parents = set()
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
        parents.add(path.parent)
    for parent in sorted(parents):
        sync_directory(parent)


def remove_unfinished(directory: Path) -> list[Path]:
    """Removes what a crash left half-made directly in ``directory``; returns what it removed."""
    rubbish = sorted(directory.glob(f"{UNFINISHED}*")) if directory.is_dir() else []
    for path in rubbish:
        remove(path)
    return rubbish


@contextmanager
def locked(path: Path, owner: str = "", wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock between processes. With ``wait=False`` raises Busy, naming the owner."""
    make_directory(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            raise Busy(f"{path} is held by {holder}", "Stop it first, or use another --home") from None
        if owner:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether another process, or another part of this one, holds that lock."""
    if not path.exists():
        return False
    try:
        with locked(path, wait=False):
            return False
    except Busy:
        return True


def _write_aside(path: Path, blocks: Iterable[bytes], mode: int = 0o600) -> Path:
    make_directory(path.parent)
    aside = path.parent / f"{UNFINISHED}{path.name}.{os.getpid()}"
    with room(path):
        # Anew: where an earlier `create` could not unlink it, it is the finished file under a second name.
        with suppress(FileNotFoundError):
            os.unlink(aside)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            for block in blocks:
                _write_all(descriptor, block)
            sync(descriptor)
        except OSError:
            with suppress(OSError):
                os.unlink(aside)
            raise
        finally:
            os.close(descriptor)
    return aside


def _open_lines(path: Path) -> int:
    """Opens an append-only file. Its name is durable before it holds a line, also if whoever made it got no further."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size == 0:
            sync_directory(path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _append(descriptor: int, data: bytes) -> int:
    end = _cut_torn_line(descriptor)
    try:
        _write_all(descriptor, data)
        sync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, end)
        raise
    return end + len(data)


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Says of a full disk that it is one."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room to write {path} ({error.strerror})", "Free some; it goes on by itself") from error
        raise


def _remove_tree(directory: Path) -> None:
    for folder, folders, names in os.walk(directory, topdown=False):
        for name in names:
            os.unlink(os.path.join(folder, name))
        for name in folders:
            below = os.path.join(folder, name)
            (os.unlink if os.path.islink(below) else os.rmdir)(below)
    os.rmdir(directory)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _cut_torn_line(descriptor: int) -> int:
    """Truncates an append-only file of lines after its last newline; returns its length in bytes."""
    end = os.fstat(descriptor).st_size
    if end == 0 or os.pread(descriptor, 1, end - 1) == b"\n":
        return end
    keep, step = end, 1 << 16
    while keep > 0:
        start = max(0, keep - step)
        newline = os.pread(descriptor, keep - start, start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    os.ftruncate(descriptor, keep)
    return keep

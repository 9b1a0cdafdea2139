"""File changes on Linux: the kernel's own queue, waited for on the event loop. No thread, nothing that looks in turns.

Only directories that matter are watched, each by itself: inotify knows no trees, and an archive only grows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
from inotify_simple import INotify, flags

from daemon.watcher import EVERYBODY, Names, OutOfWatches, Place, place_of
from genome.layout import Home

PAUSE_SECONDS = 0.001
"""After each reading. Under a stream of changes it bounds what watching costs; the first of them never waits."""

RECORDS = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.ONLYDIR
"""Records come by a rename or a link. What a trainer appends to its log does not even wake the process."""
DROPS = RECORDS | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB
"""A file may be appended to for weeks without being closed (MODIFY), be written through a memory map, which tells only
at its end (CLOSE_WRITE), or become readable (ATTRIB)."""
NO_ROOM = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}


async def changes(home: Home) -> AsyncIterator[Names]:
    """`daemon.watcher.changes`. Raises OutOfWatches when the kernel's limit is reached, then or later."""
    with _limits(), INotify(nonblocking=True) as kernel:
        tree = Tree(home, kernel)
        tree.add(Path())
        yield frozenset()
        while True:
            await anyio.wait_readable(kernel)
            if woken := tree.read():
                yield woken
            await anyio.sleep(PAUSE_SECONDS)


class Tree:
    """The watched directories of a home, kept in step with what is there."""

    def __init__(self, home: Home, kernel: INotify) -> None:
        self.home = home
        self.kernel = kernel
        self.watched: dict[int, tuple[Path, Place]] = {}
        """By watch descriptor: the path in the home."""

    def add(self, directory: Path) -> Names:
        """Watches a directory and those in it that matter. Returns who should look at what came before the watch."""
        place = place_of(directory)
        if place is None:
            return frozenset()
        path, woken = self.home.root / directory, place.wakes
        try:
            descriptor = self.kernel.add_watch(path, DROPS if place.drops else RECORDS)
            self.watched.setdefault(descriptor, (directory, place))
            with os.scandir(path) as entries:
                below = [entry.name for entry in entries if entry.is_dir()]
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            return woken  # gone again, no directory or not for us to read: whoever scans sees the same
        for name in below:
            woken |= self.add(directory / name)
        return woken

    def read(self) -> Names:
        """Takes all the kernel has to tell; returns who is woken by it."""
        woken: Names = frozenset()
        for event in self.kernel.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                self._forget(Path())
                self.add(Path())
                return EVERYBODY
            if event.mask & flags.IGNORED:
                self.watched.pop(event.wd, None)
            elif event.wd in self.watched:
                directory, place = self.watched[event.wd]
                is_directory = bool(event.mask & flags.ISDIR)
                woken |= place.woken_by(event.name, is_directory)
                # A watch follows a directory to its next name; one that was removed is told as IGNORED.
                if is_directory and event.mask & flags.MOVED_FROM:
                    self._forget(directory / event.name)
                if is_directory and event.mask & (flags.CREATE | flags.MOVED_TO):
                    woken |= self.add(directory / event.name)
        return woken

    def _forget(self, directory: Path) -> None:
        """Of all that is watched, a directory and those below it."""
        for descriptor, (path, _) in list(self.watched.items()):
            if path.is_relative_to(directory):
                del self.watched[descriptor]
                with suppress(OSError):  # removed meanwhile
                    self.kernel.rm_watch(descriptor)


@contextmanager
def _limits() -> Iterator[None]:
    """Says of the kernel's limits that they are reached, and where they are set."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        setting = f"/proc/sys/fs/inotify/{NO_ROOM[error.errno]}"
        raise OutOfWatches(
            f"the kernel gives this user no more of inotify ({error.strerror})",
            f"Raise {setting} and start the daemon again; until then it looks at every file in turns, which costs CPU",
        ) from error

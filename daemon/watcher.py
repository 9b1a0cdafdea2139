"""Who is woken by which change in a home. On Linux by inotify, elsewhere by watchfiles; both ask the same table.

A change only wakes a loop, whose scan is the truth: one that is missed costs time, never data.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
from watchfiles._rust_notify import RustNotify  # of awatch, what begins to watch when it is made

from daemon.events import Announcer
from genome import files, intake
from genome.errors import Unavailable
from genome.layout import NAME, Home

Names = frozenset[str]
"""Of loops."""
EVERYBODY: Names = frozenset(
    {"ingest", "planner", "runner", "gate", "deployer", "monitor", "searcher", "rehearser", "alerts"}
)
OWN_FILES = frozenset({"log.txt", "events.jsonl"})
"""Written by the runner all the time; nobody waits for them. In the inbox they are names like any other."""

DEBOUNCE_MS, STEP_MS = 10, 5
"""watchfiles' defaults let a steady stream of files wait for over a second."""
POLL_MS = 300
"""Between two looks at every file, where the kernel tells nothing."""
LOOK_MS = 5000
"""Polling misses a change in the same second as the last: then the ingest loop looks by itself after so long."""


class OutOfWatches(Unavailable):
    """The kernel gives this user no more inotify watches, or no instance of inotify."""


@dataclass(frozen=True)
class Place:
    """Directories of a home in which a change wakes somebody."""

    parts: tuple[str, ...]
    """Of the path in the home; ``*`` is any persona, domain or job."""
    wakes: Names
    drops: bool = False
    """Whether files are dropped here: then those that intake takes matter, down to their every byte."""

    def fits(self, directory: Path) -> bool:
        return len(directory.parts) == len(self.parts) and all(
            wanted == name or (wanted == "*" and NAME.fullmatch(name) is not None)
            for wanted, name in zip(self.parts, directory.parts, strict=True)
        )

    def woken_by(self, name: str, is_directory: bool) -> Names:
        """Who is woken when an entry of such a directory was made, changed or removed."""
        if self.drops:
            matters = intake.is_drop(name) or (is_directory and not name.startswith("."))
        else:
            matters = not name.startswith(files.UNFINISHED) and name not in OWN_FILES
        return self.wakes if matters else frozenset()


def _places(at: Home) -> tuple[Place, ...]:
    ingest, planner, searcher = frozenset({"ingest"}), frozenset({"planner"}), frozenset({"searcher"})
    jobs = frozenset({"runner", "gate", "planner", "searcher", "rehearser"})
    # The gate: a persona that is no longer pinned, or whose canary ended, has candidates that can be judged.
    served = frozenset({"deployer", "monitor", "gate", "rehearser"})
    return (
        Place(at.root.parts, frozenset()),  # what is removed from it and made again is found again
        *(Place(path.parts, ingest, drops=True) for path in (at.buffer, at.inbox, at.inbox / "*", at.inbox / "*/*")),
        Place(at.rejected.parts, frozenset()),
        # Who writes to pending/ is the ingest loop or a caller of the daemon; both ring planner and monitor themselves.
        *(Place(path.parts, planner) for path in (at.buffer / "*", at.buffer / "*/*", at.queued("*", "*"))),
        # The planner: signals of a batch that was set aside may wait again, and what rested after it may go on.
        *(Place(path.parts, searcher | planner) for path in (at.set_aside("*", "*"), at.set_aside("*", "*") / "*")),
        *(Place(path.parts, jobs) for path in (at.jobs, at.active_jobs, at.active_jobs / "*", at.completed_jobs)),
        Place(at.alerts.parts, frozenset({"alerts"})),
        *(Place(path.parts, served) for path in (at.adapters, at.adapters / "*", at.promotions("*"))),
    )


PLACES = _places(Home(Path()))
"""By their paths in a home. The first that fits counts."""


def place_of(directory: Path) -> Place | None:
    """Of a directory, by its path in the home; None: nothing in it wakes anybody."""
    return next((place for place in PLACES if place.fits(directory)), None)


def woken_by(path: Path, is_directory: bool) -> Names:
    """Who is woken by a change of ``path`` in the home. A directory may have come with all that lies in it."""
    above, itself = place_of(path.parent), place_of(path) if is_directory else None
    woken = above.woken_by(path.name, is_directory) if above else frozenset()
    return woken | itself.wakes if itself else woken


async def changes(home: Home, announcer: Announcer) -> AsyncIterator[Names]:
    """The loops to wake, at every change. The first item wakes nobody: it says that no change is missed from now on."""
    begun: Names = frozenset()
    for path in (home.buffer, home.jobs, home.adapters, home.alerts):
        await anyio.to_thread.run_sync(files.make_directory, path)
    if sys.platform == "linux":
        from daemon import inotify  # its library is there on Linux alone

        try:
            async with aclosing(inotify.changes(home)) as found:
                async for names in found:
                    yield names
        except OutOfWatches as error:
            announcer.tell("watching_by_polling", error=str(error))
            begun = EVERYBODY  # for what changed in between
    async with aclosing(by_watchfiles(home, polling=sys.platform == "linux")) as found:
        async for names in found:
            yield names | begun
            begun = frozenset()


async def by_watchfiles(home: Home, polling: bool = False) -> AsyncIterator[Names]:
    """`changes`, by a thread that looks every few milliseconds. ``polling``: by looking at every file, now and then."""
    root, ended = home.root.resolve(), threading.Event()
    at = Home(root)
    roots = [str(path) for path in (at.buffer, at.jobs, at.adapters, at.alerts)]
    watched = RustNotify(roots, False, polling, POLL_MS, True, True)
    patience = LOOK_MS if polling else 0  # 0: any length of time
    try:
        yield frozenset()
        while True:
            found = await anyio.to_thread.run_sync(
                watched.watch, DEBOUNCE_MS, STEP_MS, patience, ended, abandon_on_cancel=True
            )
            if not isinstance(found, set):
                yield frozenset({"ingest"})
                continue
            # A link out of the home is told by where it leads: what changes there is found by the next scan.
            paths = {Path(path) for _, path in found if Path(path).is_relative_to(root)}
            woken = {name for path in paths for name in woken_by(path.relative_to(root), path.is_dir())}
            if woken:
                yield frozenset(woken)
    finally:
        ended.set()

"""The ingest loop: from the drop zone into the buffer. The directory scan is the truth; a file event only wakes it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio.from_thread
import anyio.to_thread

from daemon.events import Alarm, Announcer
from genome import files, intake
from genome.buffer import Buffer, Receipt
from genome.config import Config
from genome.errors import Busy
from genome.intake import Chunk, Drop, Reading, Scan, Stamp
from genome.layout import Home

COMMIT_BYTES, COMMIT_CHUNKS = intake.CHUNK_BYTES, 1000
"""Many small files are committed together, up to so much."""


@dataclass
class Seen:
    """A file of the drop zone as it was found last."""

    key: str
    stamp: Stamp
    taken: bool
    """Whether all of it was."""
    damaged: bool = False
    """Whether the rest cannot be read: then it is left to a person, and not cleared."""


@dataclass
class Ingest:
    home: Home
    config: Config
    buffer: Buffer
    announcer: Announcer
    planner: Alarm
    monitor: Alarm
    duplicates: int = 0
    """Since this daemon started."""
    stopped: str = ""
    """Why nothing is taken at the moment; empty: all is."""
    seen: dict[str, Seen] = field(default_factory=dict)
    """By path."""
    names: dict[str, str] = field(default_factory=dict)
    """By file key: the path it was last seen under."""
    clear_at: float = math.inf
    """Before that no file has been kept for long enough: thousands that are kept cost nothing at every look."""
    unreadable: set[Path] = field(default_factory=set)
    """Told already."""

    name = "ingest"

    async def step(self) -> float | None:
        """Takes every whole line there is. Returns when a file will have been still, or kept, for long enough."""
        try:
            if self.stopped:  # by a call, perhaps, while no file waits that would show whether that is over
                await anyio.to_thread.run_sync(self.buffer.accept, (), time.time())
            look_again = await anyio.to_thread.run_sync(self._take_all)
        except Busy as error:
            return self._stop(str(error), error.retry_seconds)
        if self.buffer.stopped:  # with all files taken, or none there: what came over gRPC was not
            return self._stop(self.buffer.stopped)
        if self.stopped:
            self.announcer.tell("intake_resumed")
            self.stopped = ""
        return look_again

    def _stop(self, why: str, retry_seconds: float | None = None) -> float:
        """Says once that nothing is taken. Returns when to look again."""
        if not self.stopped:
            self.announcer.tell("intake_stopped", reason=why)
        self.stopped = why
        return time.time() + (retry_seconds or intake.RETRY_SECONDS)

    def _take_all(self) -> float | None:
        """One look at the whole drop zone."""
        present: set[str] = set()

        def unchanged(path: str, stamp: Stamp) -> bool:
            present.add(path)
            known = self.seen.get(path)
            return known is not None and known.taken and known.stamp == stamp

        settle = self.config.intake.settle_seconds
        first = not self.seen
        scan = Scan(time.time(), settle, unchanged)
        chunks: list[Chunk] = []
        readings: dict[str, Reading] = {}  # by file key
        for drop in intake.drops(self.home, scan):
            if drop.key in readings:  # a second name of one file
                self._commit(chunks, readings)
                chunks, readings = [], {}
            reading = self._begin(drop)
            readings[drop.key] = reading
            for chunk in reading.chunks():
                chunks.append(chunk)
                if len(chunks) >= COMMIT_CHUNKS or sum(len(chunk.data) for chunk in chunks) >= COMMIT_BYTES:
                    self._commit(chunks, readings)
                    chunks, readings = [], {drop.key: reading}
            if reading.trouble is not None:
                scan.failed(drop.path, reading.trouble)
            if reading.waits:
                scan.later.append(drop.changed + settle)
        self._commit(chunks, readings)
        self._report_unreadable(scan.unreadable)
        gone = self.seen.keys() - present
        self._forget(gone)
        if (gone or first) and not scan.unreadable:  # how far those were read must be known when they can be read again
            self.buffer.forget([known for known in list(self.buffer.progress) if known not in self.names])
        return min([*scan.later, *self._clear()], default=None)

    def _forget(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            seen = self.seen.pop(path)
            if self.names.get(seen.key) == path:
                del self.names[seen.key]

    def _begin(self, drop: Drop) -> Reading:
        """Where to read on. What happened to the file since it was last seen is told, and never guessed about."""
        path, taken = drop.shown, self.buffer.taken(drop.key)
        known, offset = self.seen.get(str(drop.path)), taken.offset
        if known is not None and known.key != drop.key:
            self._tell("file_replaced", path=path, hint="the new one is read from its beginning")
        was = self.names.get(drop.key)
        if offset and known is None and was is not None and not _same(intake.stamp(Path(was)), drop.stamp):
            self._tell("file_renamed", path=path, was=_shown(was), taken=offset)
        if not drop.packed and (drop.size < offset or intake.check(drop, offset) not in (taken.check, None)):
            self._tell(
                "file_truncated" if drop.size < offset else "file_rewritten", path=path, size=drop.size, taken=offset,
                hint="it is read from its beginning; lines that were taken before count as duplicates",
            )  # fmt: skip
            self.buffer.forget([drop.key])
        settled = time.time() - drop.changed >= self.config.intake.settle_seconds
        return Reading(drop, self.buffer.taken(drop.key), settled, self.config.intake.max_line_bytes)

    def _commit(self, chunks: list[Chunk], readings: dict[str, Reading]) -> None:
        """Makes chunks durable, then remembers how far the files they come from were taken."""
        receipt = self.buffer.commit(chunks, time.time()) if chunks else Receipt()
        for reading in readings.values():
            drop, taken = reading.drop, not reading.waits and reading.ended
            known = self.seen.get(str(drop.path))
            if reading.damaged and not (known is not None and known.damaged and known.key == drop.key):
                self._tell("file_damaged", path=drop.shown, hint="it is kept; put a whole one in its place")
            self.seen[str(drop.path)] = Seen(drop.key, drop.stamp, taken, reading.damaged)
            self.names[drop.key] = str(drop.path)
            if taken and not reading.damaged:
                self.clear_at = min(self.clear_at, drop.changed + self._keep_seconds)
        if receipt != Receipt():
            self.duplicates += receipt.duplicates
            self._tell("ingested", accepted=receipt.accepted, duplicates=receipt.duplicates, rejected=receipt.rejected)
        if receipt.accepted:
            anyio.from_thread.run_sync(self.planner.ring)
            anyio.from_thread.run_sync(self.monitor.ring)

    @property
    def _keep_seconds(self) -> float:
        return self.config.intake.inbox_retention_hours * 3600

    def _clear(self) -> list[float]:
        """Removes files that were taken in whole and kept for long enough. Returns when the next will have been.

        Their lines are synced: `commit` returned. One that changed since is left to the next look.
        """
        now = time.time()
        if now >= self.clear_at:
            kept = {path: seen.stamp[3] / 1e9 + self._keep_seconds for path, seen in self.seen.items()
                    if seen.taken and not seen.damaged}  # fmt: skip
            clear = [path for path, keep_until in kept.items()
                     if keep_until <= now and intake.stamp(Path(path)) == self.seen[path].stamp]  # fmt: skip
            files.remove_all(Path(path) for path in clear)
            keys = {self.seen[path].key for path in clear}
            self._forget(clear)
            self.buffer.forget(keys - self.names.keys())  # another file may get their inodes
            self.clear_at = min((until for until in kept.values() if until > now), default=math.inf)
        return [self.clear_at] if self.clear_at < math.inf else []

    def _report_unreadable(self, paths: list[Path]) -> None:
        for path in paths:
            if path not in self.unreadable:
                self._tell("file_unreadable", path=_shown(path), hint="may the daemon's user read it?")
        self.unreadable = set(paths)

    def _tell(self, event: str, **facts: Any) -> None:
        anyio.from_thread.run_sync(partial(self.announcer.tell, event, **facts))


def _same(found: Stamp | None, wanted: Stamp) -> bool:
    """Whether it is one file: the second name is a hard link, then, and no rename."""
    return found is not None and found[:2] == wanted[:2]


def _shown(path: str | Path) -> str:
    """A file's name may be bytes that are no text; what is told is."""
    return os.fsencode(path).decode(errors="replace")

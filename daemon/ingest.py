"""The ingest loop: from the drop zone into the buffer. The directory scan is the truth; a file event only wakes it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio.to_thread

from daemon.events import Alarm, Announcer
from genome import files, intake
from genome.buffer import Buffer, Receipt
from genome.config import Config
from genome.layout import Home


@dataclass
class Ingest:
    home: Home
    config: Config
    buffer: Buffer
    announcer: Announcer
    planner: Alarm
    duplicates: int = 0
    """Since this daemon started."""
    reported: set[str] = field(default_factory=set)
    """Keys of files whose shrinking was told already."""

    name = "ingest"

    async def step(self) -> float | None:
        """Takes every whole line there is. Returns when a file will have been still, or kept, for long enough."""
        receipt, look_again = await anyio.to_thread.run_sync(self._take_all)
        self.duplicates += receipt.duplicates
        if receipt.accepted or receipt.duplicates or receipt.rejected:
            self.announcer.tell(
                "ingested", accepted=receipt.accepted, duplicates=receipt.duplicates, rejected=receipt.rejected
            )
        if receipt.accepted:
            self.planner.ring()
        return look_again

    def _take_all(self) -> tuple[Receipt, float | None]:
        settle = self.config.intake.settle_seconds
        total, looks = Receipt(), []
        for drop in intake.drops(self.home, time.time(), settle):
            total += self._take(drop)
            look = self._finish(drop)
            if look is not None:
                looks.append(look)
        return total, min(looks, default=None)

    def _take(self, drop: intake.Drop) -> Receipt:
        limits, total = self.config.intake, Receipt()
        if drop.size < self.buffer.offset(drop.key):
            self._report_shrunk(drop)
            return total
        while True:
            offset = self.buffer.offset(drop.key)
            chunk = intake.read_chunk(drop, offset, time.time(), limits.settle_seconds, limits.max_line_bytes)
            if chunk is None:
                return total
            total += self.buffer.commit(chunk, time.time())

    def _finish(self, drop: intake.Drop) -> float | None:
        """Removes a file that was taken in whole and kept for long enough; else says when to look at it again."""
        if self.buffer.offset(drop.key) < drop.size:
            return drop.changed + self.config.intake.settle_seconds + 0.01
        if self.buffer.offset(drop.key) > drop.size:
            return None
        keep_until = drop.changed + self.config.intake.inbox_retention_hours * 3600
        if time.time() < keep_until:
            return keep_until
        files.remove(drop.path)
        return None

    def _report_shrunk(self, drop: intake.Drop) -> None:
        if drop.key not in self.reported:
            self.reported.add(drop.key)
            self.announcer.tell(
                "file_shrank",
                path=str(drop.path),
                size=drop.size,
                taken=self.buffer.offset(drop.key),
                hint="it was truncated after it was read; move new lines in as a new file",
            )

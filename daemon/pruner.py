"""The pruner loop: once a day, what the home no longer needs goes, and old segments are compressed.

It also ends retractions that were interrupted, and says of what is served whether retracted signals are in it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio.to_thread

from daemon.events import Announcer
from genome import files, pruning, retraction
from genome.adapters import AdapterId
from genome.config import Config
from genome.layout import Home


@dataclass
class Pruner:
    home: Home
    config: Config
    announcer: Announcer
    due: float = 0.0
    """When it looks next, in seconds since 1970. Being woken does not hasten it."""

    name = "pruner"

    async def step(self) -> float | None:
        """Carries out what is due. Returns when to look again: in a day."""
        now = time.time()
        if now >= self.due:
            for adapter, signals in (await anyio.to_thread.run_sync(self._retracted, now)).items():
                made = AdapterId.parse(adapter)
                self.announcer.tell(
                    "retracted_served", persona=made.persona, domain=made.domain, adapter=adapter, signals=len(signals),
                    hint=f"genome adapter blame {adapter} names them; a rebuild takes its place",
                )  # fmt: skip
            done = await anyio.to_thread.run_sync(pruning.carry_out, self.home, self.config.prune, now)
            if done:
                removed = [str(act.path.relative_to(self.home.root)) for act in done if act.kind == "remove"]
                self.announcer.tell("pruned", removed=removed, compressed=len(done) - len(removed))
            self.due = now + pruning.DAY
        return self.due

    def _retracted(self, now: float) -> dict[str, tuple[str, ...]]:
        """Ends retractions that were interrupted. Returns what is served and was trained on retracted signals."""
        with files.locked(self.home.lock):
            retraction.settle(self.home, now)
            return retraction.served(self.home)

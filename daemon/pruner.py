"""The pruner loop: once a day, what the home no longer needs goes, and old segments are compressed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio.to_thread

from daemon.events import Announcer
from genome import pruning
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
            done = await anyio.to_thread.run_sync(pruning.carry_out, self.home, self.config.prune, now)
            if done:
                removed = [str(act.path.relative_to(self.home.root)) for act in done if act.kind == "remove"]
                self.announcer.tell("pruned", removed=removed, compressed=len(done) - len(removed))
            self.due = now + pruning.DAY
        return self.due

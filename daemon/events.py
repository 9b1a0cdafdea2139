"""What the daemon tells: every event goes to the log and to whoever watches; alarms wake the loops."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
from anyio.streams.memory import MemoryObjectSendStream

WATCHER_BACKLOG = 1000
"""Events kept for a watcher that reads slowly; the next is dropped for it alone."""
CLOCK_SECONDS = 60.0
"""A sleep is measured by a clock that stands still while the machine is suspended, and knows nothing of one that is
set: whoever waits for a time looks at the clock this often."""


@dataclass(frozen=True)
class Event:
    time: float
    """Seconds since 1970."""
    name: str
    facts: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(self.facts, default=str, ensure_ascii=False)


@dataclass
class Announcer:
    """Tells an event to the log, to every listener and to every watcher. Called on the event loop alone."""

    log: Any = field(default_factory=lambda: structlog.get_logger("daemon"))
    watchers: set[MemoryObjectSendStream[Event]] = field(default_factory=set)
    listeners: list[Callable[[Event], None]] = field(default_factory=list)
    """Called with every event, in order, before `tell` returns: they miss none, and must be quick."""

    def tell(self, name: str, /, **facts: Any) -> None:
        self.log.info(name, **facts)
        event = Event(time.time(), name, facts)
        for listener in self.listeners:
            listener(event)
        for watcher in list(self.watchers):
            try:
                watcher.send_nowait(event)
            except anyio.WouldBlock:
                continue
            except anyio.BrokenResourceError:
                self.watchers.discard(watcher)

    @contextmanager
    def watch(self) -> Iterator[AsyncIterator[Event]]:
        """Every event from now on."""
        send, receive = anyio.create_memory_object_stream[Event](WATCHER_BACKLOG)
        self.watchers.add(send)
        try:
            yield receive
        finally:
            self.watchers.discard(send)
            send.close()
            receive.close()


@dataclass
class Alarm:
    """Wakes one loop. Rung while the loop works, it is not lost."""

    event: anyio.Event = field(default_factory=anyio.Event)
    rest_seconds: float = 0.0
    """Least time from the end of a step to the next waking by ringing: whatever rings meanwhile is one ring."""

    def ring(self) -> None:
        self.event.set()

    async def wait(self, until: float | None) -> None:
        """Returns when rung, or at ``until`` (seconds since 1970), not before. Uses no CPU meanwhile.

        Called when a step has ended.
        """
        rested = anyio.current_time() + self.rest_seconds
        while not self.event.is_set():
            left = math.inf if until is None else until - time.time()
            with anyio.move_on_after(math.inf if until is None else max(0.0, min(left, CLOCK_SECONDS))):
                await self.event.wait()
            if left <= 0:
                break
        if self.event.is_set():
            left = math.inf if until is None else max(0.0, until - time.time())
            await anyio.sleep(min(left, max(0.0, rested - anyio.current_time())))
        self.event = anyio.Event()


@dataclass(frozen=True)
class Alarms:
    """Of loops that are woken together."""

    each: tuple[Alarm, ...]

    def ring(self) -> None:
        for alarm in self.each:
            alarm.ring()

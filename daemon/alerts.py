"""The alert loops: one keeps what is open and what is owed, and one for each sink brings it there.

`Alerts` hears every event as it is told, folds it and writes alerts/open.json; each `Courier` takes from there what
its sink is owed, at its own pace. So a sink that is slow or down delays neither another sink nor any other loop.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread

from daemon.events import Alarm, Announcer, Event
from daemon.sinks import Answer, Sink, configured
from genome import alerts, conditions, files
from genome.alerts import Alert, Delivery, OpenAlerts, Told
from genome.config import Config
from genome.layout import Home


@dataclass
class Courier:
    """Brings one sink what it is owed, in order; a message that fails is tried again before the next."""

    home: Home
    config: Config
    announcer: Announcer
    sink: Sink
    alarm: Alarm
    failures: int = 0
    """In a row."""
    next_try: float = 0.0
    """In seconds since 1970. Being woken does not hasten it."""
    clock: Callable[[], float] = time.time
    share: Callable[[], float] = random.random
    """Of the pause that is taken off, from 0 to 1."""

    @property
    def name(self) -> str:
        return f"alerts-{self.sink.name}"

    async def step(self) -> float | None:
        """Delivers all that is owed, or up to the first that fails. Returns when to try that again."""
        if self.clock() < self.next_try:
            return self.next_try
        while (delivery := await anyio.to_thread.run_sync(self._next)) is not None:
            answer = await self.sink.deliver(delivery)
            if not answer.delivered and not self._gives_up(delivery, answer):
                return self._wait(delivery, answer)
            self.failures = 0
            await anyio.to_thread.run_sync(self._taken, delivery)
        return None

    def _wait(self, delivery: Delivery, answer: Answer) -> float:
        self.failures += 1
        settings = self.config.daemon
        pause = alerts.pause(self.failures, settings.backoff_seconds, settings.max_backoff_seconds, self.share())
        pause = max(pause, min(answer.after, settings.max_backoff_seconds))
        self.next_try = self.clock() + pause
        self._tell("alert_not_delivered", delivery, answer, failures=self.failures, retry_seconds=pause)
        return self.next_try

    def _gives_up(self, delivery: Delivery, answer: Answer) -> bool:
        """Whether this one is dropped; that is told."""
        too_old = self.clock() - delivery.created / 1000 > self.config.alerts.give_up_hours * 3600
        if answer.again and not too_old:
            return False
        self._tell("alert_given_up", delivery, answer)
        return True

    def _tell(self, event: str, delivery: Delivery, answer: Answer, **facts: Any) -> None:
        alert = delivery.alert
        self.announcer.tell(
            event, sink=self.sink.name, id=delivery.id, condition=alert.condition, status=alert.status,
            reason=answer.said, **facts,
        )  # fmt: skip

    def _next(self) -> Delivery | None:
        with files.locked(self.home.lock):
            return alerts.first_owed(alerts.read(self.home), self.sink.name)

    def _taken(self, delivery: Delivery) -> None:
        with files.locked(self.home.lock):
            alerts.taken(alerts.read(self.home), delivery.id, self.sink.name).write(self.home.open_alerts)


@dataclass
class Alerts:
    """Folds what is told into what is open, durably, before any of it is delivered."""

    home: Home
    config: Config
    announcer: Announcer
    alarm: Alarm
    couriers: tuple[Courier, ...]
    heard: deque[Event] = field(default_factory=deque)
    """Told, and not written yet. Unlike a watcher's backlog it drops nothing; events that matter here are few."""
    clock: Callable[[], float] = time.time

    name = "alerts"

    def __post_init__(self) -> None:
        self.announcer.listeners.append(self.hear)

    def hear(self, event: Event) -> None:
        if event.name in conditions.EVENTS:
            self.heard.append(event)
            self.alarm.ring()

    async def step(self) -> float | None:
        """Writes what was heard. Returns when time alone makes something due."""
        state = await anyio.to_thread.run_sync(self.keep)
        for courier in self.couriers:
            if alerts.first_owed(state, courier.sink.name):
                courier.alarm.ring()
        return alerts.look_again(state)

    def keep(self) -> OpenAlerts:
        """What is open and owed now, on disk. What was heard is forgotten only once it is."""
        heard, now = list(self.heard), self.clock()
        names = tuple(courier.sink.name for courier in self.couriers)
        with files.locked(self.home.lock):
            was = alerts.read(self.home)
            state = alerts.only(was, names)
            for event in heard:
                told = Told(event.name, event.facts, event.time)
                state = _owing(alerts.fold(state, told, self.config.alerts), names, event.time)
            state = _owing(alerts.ripe(state, now), names, now)
            if state != was:
                state.write(self.home.open_alerts)
        for _ in heard:
            self.heard.popleft()
        return state


def _owing(folded: tuple[OpenAlerts, Collection[Alert]], sinks: tuple[str, ...], now: float) -> OpenAlerts:
    state, sent = folded
    return alerts.owe(state, sent, sinks, now)


def compose(home: Home, config: Config, announcer: Announcer, alarms: dict[str, Alarm]) -> Alerts:
    """The loops of this config, with an alarm for each added to ``alarms``."""
    couriers = []
    for sink in configured(config.alerts, announcer):
        courier = Courier(home, config, announcer, sink, Alarm())
        alarms[courier.name] = courier.alarm
        couriers.append(courier)
    alarms[Alerts.name] = Alarm()
    return Alerts(home, config, announcer, alarms[Alerts.name], tuple(couriers))


def resolve(home: Home, config: Config, condition: str, now: float) -> None:
    """Ends an alert by hand; a running daemon, or the next one, tells the sinks. Raises NotFound if none is open."""
    names = tuple(sink.name for sink in configured(config.alerts, Announcer()))
    with files.locked(home.lock):
        state = _owing(alerts.resolve(alerts.read(home), condition, now), names, now)
        state.write(home.open_alerts)


async def attempt(sinks: Collection[Sink], now: float) -> dict[str, Answer]:
    """Sends a message of its own kind to every sink, once and at the same time; what each answered, by name."""
    alert = Alert(condition="test", severity="warning", summary="a test of the alerts", facts={}, since=int(now * 1000))
    delivery = alerts.delivery(alert, tuple(sink.name for sink in sinks), now)
    answers: dict[str, Answer] = {}

    async def send(sink: Sink) -> None:
        answers[sink.name] = await sink.deliver(delivery)

    async with anyio.create_task_group() as group:
        for sink in sinks:
            group.start_soon(send, sink)
    return {sink.name: answers[sink.name] for sink in sinks}

"""Alerts: which conditions are open, and which messages are still owed to whom. A pure fold over what the daemon tells.

    alerts/open.json

One alert is sent for a condition, however often it is told, and one message when it has ended. Both are owed to each
sink until it took them, so neither a restart nor a sink that is down repeats or loses one. A sink may get a message
twice, when the daemon dies between its answer and the record: every message has an id to know that by.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from genome.conditions import KINDS, Kind, Severity, worded
from genome.config import Alerts as Settings
from genome.errors import NotFound
from genome.layout import Home
from genome.records import Record

MOST_ITEMS, MOST_CHARACTERS = 20, 1000
"""Of a list, and of a text, among the facts: an alert is read by people, and fits into a datagram."""


@dataclass(frozen=True)
class Told:
    """An event of the daemon."""

    name: str
    facts: Mapping[str, Any]
    time: float
    """Seconds since 1970."""


class Alert(BaseModel):
    """What people are told of one condition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    condition: str
    severity: Severity
    summary: str
    facts: dict[str, Any]
    """Of the event that told it last."""
    since: int
    """Milliseconds since 1970."""
    resolved: int | None = None
    """Likewise; None: it is open."""

    @property
    def kind(self) -> str:
        return self.condition.partition("/")[0]

    @property
    def status(self) -> Literal["raised", "resolved"]:
        return "raised" if self.resolved is None else "resolved"


class Entry(BaseModel):
    """A condition that is open, or whose end is not told yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alert: Alert
    told: bool = False
    """Whether a message said that it is open."""
    due: int | None = None
    """When its beginning or its end is told, if nothing changes until then; in milliseconds since 1970."""


class Delivery(BaseModel):
    """A message that some sinks have not taken yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """The same at every attempt: who gets it twice knows it by that."""
    alert: Alert
    created: int
    """Milliseconds since 1970."""
    owed: tuple[str, ...]
    """Names of sinks."""

    def message(self) -> dict[str, Any]:
        """What a sink is given."""
        alert = self.alert.model_dump()
        return {"id": self.id, "status": self.alert.status, "kind": self.alert.kind, **alert}

    def body(self) -> bytes:
        """The same as one line of JSON."""
        return json.dumps(self.message(), ensure_ascii=False).encode()


class OpenAlerts(Record):
    """The conditions that are open, and the messages that are owed, oldest first."""

    conditions: tuple[Entry, ...] = ()
    owed: tuple[Delivery, ...] = ()

    @property
    def open(self) -> tuple[Alert, ...]:
        """What people were told of, and were not told the end of."""
        return tuple(entry.alert for entry in self.conditions if entry.told)


def read(home: Home) -> OpenAlerts:
    """Under the home's lock. Raises Damaged (and moves it aside) if it cannot be understood."""
    try:
        return OpenAlerts.read(home.open_alerts)
    except FileNotFoundError:
        return OpenAlerts()


def fold(state: OpenAlerts, told: Told, settings: Settings) -> tuple[OpenAlerts, tuple[Alert, ...]]:
    """What is open after an event, and the alerts to send now."""
    entries = {entry.alert.condition: entry for entry in state.conditions}
    for kind in KINDS:
        for by in kind.resolved_by:
            if by.fits(told.name, told.facts):
                for condition in by.chosen(kind, told.facts, list(entries)):
                    _resolve(entries, condition, _millis(told.time), kind, settings)
        if any(by.fits(told.name, told.facts) for by in kind.raised_by):
            _raise(entries, kind, told, settings)
    return ripe(state.model_copy(update={"conditions": tuple(entries.values())}), told.time)


def _raise(entries: dict[str, Entry], kind: Kind, told: Told, settings: Settings) -> None:
    now, facts = _millis(told.time), {name: plain(value) for name, value in told.facts.items()}
    condition = worded(kind.condition, facts)
    alert = Alert(condition=condition, severity=kind.severity, summary=worded(kind.summary, facts), facts=facts,
                  since=now)  # fmt: skip
    if (known := entries.get(condition)) is None:
        entries[condition] = Entry(alert=alert, due=now + _millis(settings.patience_seconds * kind.patient))
    else:  # the same alert with the latest words; an end that was not told yet was none
        alert = alert.model_copy(update={"since": known.alert.since})
        entries[condition] = Entry(alert=alert, told=known.told, due=None if known.told else known.due)


def _resolve(entries: dict[str, Entry], condition: str, now: int, kind: Kind, settings: Settings) -> None:
    known = entries[condition]
    if not known.told:
        del entries[condition]
    elif known.alert.resolved is None:
        alert = known.alert.model_copy(update={"resolved": now})
        due = now + _millis(settings.settle_minutes * 60 * kind.settles)
        entries[condition] = Entry(alert=alert, told=True, due=due)


def ripe(state: OpenAlerts, now: float) -> tuple[OpenAlerts, tuple[Alert, ...]]:
    """What time alone makes due: conditions that lasted, and ends that held."""
    kept, sent = [], []
    for entry in state.conditions:
        if entry.due is None or entry.due > _millis(now):
            kept.append(entry)
            continue
        sent.append(entry.alert)
        if entry.alert.resolved is None:
            kept.append(Entry(alert=entry.alert, told=True))
    return (state.model_copy(update={"conditions": tuple(kept)}), tuple(sent)) if sent else (state, ())


def look_again(state: OpenAlerts) -> float | None:
    """When time alone makes something due, in seconds since 1970."""
    dues = [entry.due for entry in state.conditions if entry.due is not None]
    return min(dues) / 1000 if dues else None


def resolve(state: OpenAlerts, condition: str, now: float) -> tuple[OpenAlerts, tuple[Alert, ...]]:
    """By hand, and told at once. Raises NotFound if it is not open."""
    known = next((entry for entry in state.conditions if entry.alert.condition == condition), None)
    if known is None:
        raise NotFound(f"no alert is open for {condition!r}", "genome alerts list shows those that are")
    rest = tuple(entry for entry in state.conditions if entry is not known)
    ended = known.alert.model_copy(update={"resolved": _millis(now)})
    return state.model_copy(update={"conditions": rest}), (ended,) if known.told else ()


def owe(state: OpenAlerts, sent: Collection[Alert], sinks: tuple[str, ...], now: float) -> OpenAlerts:
    """Each of these alerts is owed to each of these sinks, after all that is owed already."""
    new = tuple(delivery(alert, sinks, now) for alert in sent)
    return state.model_copy(update={"owed": (*state.owed, *new)}) if new and sinks else state


def delivery(alert: Alert, sinks: tuple[str, ...], now: float) -> Delivery:
    """The message of an alert. Its id follows from all that it says."""
    identity = hashlib.sha256(alert.model_dump_json().encode()).hexdigest()[:32]
    return Delivery(id=identity, alert=alert, created=_millis(now), owed=sinks)


def first_owed(state: OpenAlerts, sink: str) -> Delivery | None:
    """The message a sink is given next: each gets them in the order in which they came."""
    return next((delivery for delivery in state.owed if sink in delivery.owed), None)


def taken(state: OpenAlerts, identity: str, sink: str) -> OpenAlerts:
    """One message is no longer owed to one sink."""
    return _without(state, lambda delivery, name: delivery.id == identity and name == sink)


def only(state: OpenAlerts, sinks: Collection[str]) -> OpenAlerts:
    """Nothing is owed to a sink that the config does not have any more."""
    return _without(state, lambda _delivery, name: name not in sinks)


def _without(state: OpenAlerts, gone: Callable[[Delivery, str], bool]) -> OpenAlerts:
    left = (
        found.model_copy(update={"owed": tuple(name for name in found.owed if not gone(found, name))})
        for found in state.owed
    )
    return state.model_copy(update={"owed": tuple(found for found in left if found.owed)})


def pause(attempts: int, first: float, longest: float, share: float) -> float:
    """Seconds before the next attempt: twice as long after each failure, up to ``longest``. ``share`` in 0 … 1 is drawn
    by the caller and takes up to a half off, so that many who failed together do not come back together."""
    return min(longest, first * 2.0 ** min(attempts - 1, 30)) * (1 - share / 2)


def plain(value: Any) -> Any:
    """A fact as JSON has it, cut to what people read."""
    if isinstance(value, str):
        return value if len(value) <= MOST_CHARACTERS else f"{value[:MOST_CHARACTERS]}…"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in list(value.items())[:MOST_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(item) for item in list(value)[:MOST_ITEMS]]
        return [*items, f"… and {len(value) - MOST_ITEMS} more"] if len(value) > MOST_ITEMS else items
    return plain(str(value))


def _millis(seconds: float) -> int:
    return int(seconds * 1000)

"""Which conditions are told to people, as a table: what raises each, what ends it, and how it is put into words.

The fold over it is in `genome.alerts`; docs/alerts.md shows the same table. A fact that an event lacks reads ``?``, so
what is told wrongly is seen, and never stops the telling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid5

Severity = Literal["warning", "critical"]
Facts = Mapping[str, Any]

MESSAGE_IDS = UUID("9f1f3c52-1d0e-4b6c-8d0a-5a1f6f0c7e21")
"""Namespace of the journal's message ids: one for each kind, the same for ever."""
LOOP_FAILURES = 3
"""In a row. One or two are what trying again is for."""


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def worded(template: str, facts: Facts) -> str:
    """The template with the facts in their places."""
    texts = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in facts.items()}
    return template.format_map(_Known(texts))


@dataclass(frozen=True)
class On:
    """An event of the daemon, where its facts are so."""

    event: str
    condition: str = ""
    """Template of the conditions it is about; empty: the kind's own. With ``*`` at its end: all that begin so."""
    where: tuple[tuple[str, object], ...] = ()
    at_least: tuple[tuple[str, float], ...] = ()

    def fits(self, event: str, facts: Facts) -> bool:
        return (
            event == self.event
            and all(facts.get(name) == value for name, value in self.where)
            and all(_number(facts.get(name)) >= least for name, least in self.at_least)
        )

    def chosen(self, kind: Kind, facts: Facts, conditions: Iterable[str]) -> list[str]:
        """Which of ``conditions`` it is about."""
        wanted = worded(self.condition or kind.condition, facts)
        if self.condition.endswith("*"):
            return [condition for condition in conditions if condition.startswith(wanted[:-1])]
        return [condition for condition in conditions if condition == wanted]


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else float("-inf")


@dataclass(frozen=True)
class Kind:
    """One kind of condition."""

    condition: str
    """Template of its name; what stands before the first slash names the kind."""
    severity: Severity
    """critical: somebody is served worse, or nothing goes on. warning: it can wait for working hours."""
    summary: str
    """Template of what a person reads."""
    raised_by: tuple[On, ...]
    resolved_by: tuple[On, ...]
    patient: bool = False
    """Told only when it has lasted for ``alerts.patience_seconds``."""
    settles: bool = False
    """Its end is told only when it has held for ``alerts.settle_minutes``: it comes and goes."""

    @property
    def name(self) -> str:
        return self.condition.partition("/")[0]

    @property
    def message_id(self) -> str:
        return message_id(self.name)


def message_id(kind: str) -> str:
    """128 bits in hex, by which the journal finds all alerts of one kind."""
    return uuid5(MESSAGE_IDS, kind).hex


PROMOTED = (On("promoted", where=(("share", 1.0),)), On("graduated"))
"""A better version of the domain serves every session: not a canary's share of them."""

KINDS = (
    Kind(
        "training-failed/{persona}/{domain}",
        "warning",
        "training {persona}/{domain} failed for good: {reason}",
        raised_by=(On("job_failed"),),
        resolved_by=(On("trained"), *PROMOTED),
    ),
    Kind(
        "refused/{persona}/{domain}",
        "warning",
        "{batch} of {persona}/{domain} was refused and set aside: {reason}",
        raised_by=(On("batch_set_aside"),),
        resolved_by=PROMOTED,
    ),
    Kind(
        "regression/{persona}/{domain}",
        "critical",
        "{adapter} served worse than its predecessor and was rolled back to {to}: {reason}",
        raised_by=(On("rolled_back", where=(("by", "feedback"),)),),
        resolved_by=PROMOTED,
    ),
    Kind(
        "suspected/{adapter}",
        "critical",
        "{adapter} should no longer serve, and was left to: {kept_because}; {reason}",
        raised_by=(On("regression_suspected"),),
        resolved_by=(On("suspicion_ended"),),
    ),
    Kind(
        "quality/{persona}/{domain}/{metric}",
        "warning",
        "{metric} of {persona}/{domain} dropped to {value}",
        raised_by=(On("quality_dropped"),),
        resolved_by=(On("quality_recovered"),),
        settles=True,
    ),
    Kind(
        "poison/{persona}/{domain}/{batch}",
        "warning",
        "signals of {batch} of {persona}/{domain} break the gate: {signals}",
        raised_by=(On("poison_found"),),
        resolved_by=tuple(On(by.event, "poison/{persona}/{domain}/*", by.where) for by in PROMOTED),
    ),
    Kind(
        "memory/{persona}/{domain}",
        "warning",
        "{job} of {persona}/{domain} {reason}",
        raised_by=(On("training_waits"),),
        resolved_by=(On("training_started"), On("training_wait_ended"), On("job_failed"), On("started", "memory/*")),
        patient=True,
        settles=True,
    ),
    Kind(
        "retraction/{persona}/{domain}",
        "critical",
        "{adapter} serves, and was trained on a signal that was retracted",
        raised_by=(On("retracted_served"),),
        resolved_by=PROMOTED,
    ),
    Kind(
        "loop/{loop}",
        "critical",
        "the {loop} loop failed {failures} times in a row: {error}",
        # Of what only waits for the worker the worker's own condition tells.
        raised_by=(On("loop_failed", where=(("waits_for", None),), at_least=(("failures", LOOP_FAILURES),)),),
        # A loop that failed in the last daemon is told again by this one, within the time that its end takes to settle.
        resolved_by=(On("recovered"), On("started", "loop/*")),
        settles=True,
    ),
    Kind(
        "intake",
        "critical",
        "intake stopped: {reason}",
        raised_by=(On("intake_stopped"),),
        resolved_by=(On("intake_resumed"), On("started")),
        settles=True,
    ),
    Kind(
        "worker",
        "critical",
        "the worker does not serve",
        # Whoever starts does not know the worker; it has the same time to appear as to come back.
        raised_by=(On("worker_not_serving"), On("started")),
        resolved_by=(On("worker_serving"),),
        patient=True,
        settles=True,
    ),
)

EVENTS = frozenset(on.event for kind in KINDS for on in (*kind.raised_by, *kind.resolved_by))
"""All others change nothing here."""

"""Why a domain trains now or does not: what its triggers say, which settings count, and when they are looked at again.

Read from disk with the planner's own functions, so it works with the daemon down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel

from daemon import orders
from genome import batches, files, jobs, pending, schedules, trigger_facts, triggers
from genome.config import Config
from genome.errors import NotFound
from genome.feedback import Feedback
from genome.layout import Home
from genome.trigger_facts import Samples
from genome.trigger_settings import QualityDrop, Scheduled, Triggers
from genome.triggers import Plan
from genome.verdicts import Newest

WIDTHS = ("default", "everybody", "persona", "domain")
"""Where a setting may come from, widest first."""


def plan(
    home: Home, config: Config, place: tuple[str, str], now: float, samples: Samples | None = None
) -> tuple[Plan, pending.Pending]:
    """What the planner would find now. ``place``: persona and domain."""
    settings = config.triggers_for(*place)
    samples = samples or Feedback(home, config.longest_window_days).samples
    facts = trigger_facts.gather(home, settings, pending.count(home, *place), samples, now)
    with files.locked(home.lock):  # the gate moves what has ended
        facts = replace(facts, wanted=orders.wanted(config, Newest(home).of(*place)))
    if not files.is_held(home.daemon_lock):
        facts = replace(facts, watched_since=now)  # what passed was missed, also if the daemon starts at once
    return triggers.look(settings, facts, now), facts.pending


def said(found: Plan, waiting: pending.Pending, config: Config) -> str:
    """The plan in a sentence, with what keeps a batch from being formed."""
    fewest = orders.fewest(config)
    if found.decision.due and not found.decision.rebuild and waiting.examples < fewest:
        return f"{found.reason}; but fewer than {fewest} questions, too few to judge by"
    return found.reason


def explain(
    home: Home, config: Config, of: tuple[str, str], now: float, samples: Samples | None = None
) -> list[dict[str, Any]]:
    """Of every domain with a buffer. ``of``: persona and domain to keep to; empty: any."""
    found = [
        (persona, domain)
        for persona, domain in home.domains()
        if of[0] in ("", persona) and of[1] in ("", domain)
    ]  # fmt: skip
    if not found:
        known = ", ".join("/".join(place) for place in home.domains()) or "none yet"
        raise NotFound(f"there is no buffer of {'/'.join(filter(None, of)) or 'anybody'}", f"There are: {known}")
    return [_explained(home, config, place, now, samples) for place in found]


def _explained(
    home: Home, config: Config, place: tuple[str, str], now: float, samples: Samples | None
) -> dict[str, Any]:
    found, waiting = plan(home, config, place, now, samples)
    with files.locked(home.lock):
        queued = batches.queued(home, *place)
        waits = {found.job().batch: found.waits_for() for found in jobs.active(home)}
    local = schedules.zone(config.triggers_for(*place).time_zone)

    def at(time: float | None) -> str | None:
        return None if time is None else schedules.shown(time, local)

    return {
        "persona": place[0],
        "domain": place[1],
        "due": found.decision.due,
        "starts": found.start,
        "reason": said(found, waiting, config),
        "triggers": [{**asdict(each), "look_again_local": at(each.look_again)} for each in found.said],
        "examples": waiting.examples,
        "weight": waiting.weight,
        "held_until": found.held_until,
        "held_until_local": at(found.held_until),
        "held_by": found.held_by,
        "look_again": found.look_again,
        "look_again_local": at(found.look_again),
        "paused": home.paused.exists(),
        "queued": [
            {"batch": batch.id, "rebuild": bool(batch.rebuilds), "waits": waits.get(batch.id)} for batch in queued
        ],
        "settings": [
            {"key": key, "value": value, "from": width} for key, value, width in settings_of(config, *place)
        ],
    }  # fmt: skip


def settings_of(config: Config, persona: str, domain: str) -> Iterator[tuple[str, Any, str]]:
    """Every key of [triggers] that counts for a domain, its value, and the widest table it is the same in."""
    of_tables = dict(_flat(Triggers(scheduled=Scheduled(), quality_drop=QualityDrop())))
    levels = [
        dict(_flat(level))
        for level in (Triggers(), config.triggers, config.triggers_for(persona), config.triggers_for(persona, domain))
    ]

    def same(width: int, key: str, value: Any) -> bool:
        """Where a table is off, its keys are what they would be by default."""
        return (key in levels[width] or "." in key) and levels[width].get(key, of_tables.get(key)) == value

    for key, value in levels[-1].items():
        width = len(levels) - 1
        while width > 0 and same(width - 1, key, value):
            width -= 1
        yield key, value, WIDTHS[width]


def _flat(section: BaseModel, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section:
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", False if value is None else value

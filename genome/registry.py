"""The registry: numbered promotion records, one series a persona. The newest says what should be served.

    adapters/<persona>/promotions/000007.json

Pointer, history and way back in one: a rollback is a further record. Numbers are taken with an exclusive create, so
two writers cannot both have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from genome import adapters, files
from genome.adapters import AdapterId
from genome.errors import Conflict, NotFound
from genome.layout import NAME, Home
from genome.records import Record


class StackEntry(BaseModel):
    """One adapter of a stack."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str
    digest: str
    scale: float = 1.0


Stack = tuple[StackEntry, ...]
Kind = Literal["promote", "deploy", "rollback", "canary", "pin", "unpin"]


class Promotion(Record):
    """What one persona should be served with, from this record on."""

    number: int
    persona: str
    kind: Kind
    stack: Stack
    """The whole stack. Empty: the base alone."""
    builds_on: int
    """Number of the record that a rollback of this one returns to; 0: the base alone."""
    reason: str
    job: str | None = None
    """Whose candidate it is."""
    by: str = ""
    """Who: gate, feedback, or the user's name and machine."""
    numbers: dict[str, float] = Field(default_factory=dict)
    """What was measured of it, by name of the finding."""
    share: float = 1.0
    """Of the persona's sessions that get this stack; below 1 a canary, and the others get what ``builds_on`` names."""
    pinned: bool = False
    """While the newest record says so, nothing is promoted or rolled back but by hand."""
    quarantined: tuple[str, ...] = ()
    """Adapter ids this record withdraws for good: they are not served again unless deployed by hand."""
    created: int
    """Milliseconds since 1970."""


def newest(home: Home) -> list[Promotion]:
    """The newest promotion of every persona that has one."""
    found = []
    for owner in sorted(home.adapters.iterdir()) if home.adapters.is_dir() else []:
        if NAME.fullmatch(owner.name) and (promotion := current(home, owner.name)):
            found.append(promotion)
    return found


def current(home: Home, persona: str) -> Promotion | None:
    numbered = _records(home, persona)
    return Promotion.read(numbered[-1]) if numbered else None


def history(home: Home, persona: str) -> list[Promotion]:
    """Oldest first."""
    return [Promotion.read(path) for path in _records(home, persona)]


def stack_of(home: Home, persona: str) -> Stack:
    """What should be served now."""
    promotion = current(home, persona)
    return promotion.stack if promotion else ()


def with_adapter(stack: Stack, entry: StackEntry) -> Stack:
    """``stack`` with ``entry`` in the place of its domain's adapter, or at its end."""

    def line(adapter: str) -> tuple[str, str]:
        parsed = AdapterId.parse(adapter)
        return parsed.persona, parsed.domain

    kept = [entry if line(old.adapter) == line(entry.adapter) else old for old in stack]
    return tuple(kept) if entry in kept else (*kept, entry)


def routes(promotion: Promotion) -> dict[str, Stack]:
    """Route name → stack: the persona's whole stack, and for each domain the shared adapters with that domain's."""
    shared = tuple(entry for entry in promotion.stack if AdapterId.parse(entry.adapter).persona == "shared")
    named = {promotion.persona: promotion.stack}
    for entry in promotion.stack:
        parsed = AdapterId.parse(entry.adapter)
        if parsed.persona != "shared":
            named[f"{promotion.persona}/{parsed.domain}"] = (*shared, entry)
    return named


def promote(
    home: Home, adapter_id: str, now: float, reason: str, job: str, numbers: Mapping[str, float] | None = None
) -> Promotion:
    """Serves a candidate from now on. Doing it again for the same job changes nothing."""
    persona = AdapterId.parse(adapter_id).persona
    for promotion in reversed(history(home, persona)):
        if promotion.job == job:
            return promotion
    return _put(home, adapter_id, now, "promote", reason, job, numbers)


def deploy(home: Home, adapter_id: str, now: float, reason: str) -> Promotion:
    """Serves an adapter that exists, by hand."""
    persona = AdapterId.parse(adapter_id).persona
    if any(entry.adapter == adapter_id for entry in stack_of(home, persona)):
        raise Conflict(f"{adapter_id} is what {persona} is served with already", "genome adapter list shows the stack")
    return _put(home, adapter_id, now, "deploy", reason)


def roll_back(home: Home, persona: str, now: float, reason: str, to: str | None = None) -> Promotion:
    """Serves what was served before the current record, or the version ``to`` of one domain."""
    promotion = current(home, persona)
    if promotion is None:
        raise NotFound(f"{persona} was never served with an adapter", "There is nothing to go back from")
    if to is not None:
        if AdapterId.parse(to).persona != persona:
            raise Conflict(f"{to} is no adapter of {persona}")
        return _put(home, to, now, "rollback", reason)
    if not promotion.stack and promotion.builds_on == 0:
        raise Conflict(f"{persona} is served with the base alone", "There is nothing to go back to")
    stack: Stack = ()
    builds_on = 0
    if promotion.builds_on:
        target = Promotion.read(_path(home, persona, promotion.builds_on))
        stack, builds_on = target.stack, target.builds_on
        _check_there(home, target)
    return _append(home, promotion, Promotion(
        number=0, persona=persona, kind="rollback", stack=stack, builds_on=builds_on,
        reason=reason, created=int(now * 1000),
    ))  # fmt: skip


def _check_there(home: Home, target: Promotion) -> None:
    """Raises Conflict if an old version was pruned since: then nothing could serve that record's stack."""
    for entry in target.stack:
        if not (home.adapter(entry.adapter) / "manifest.json").exists():
            raise Conflict(
                f"promotion {target.number} of {target.persona} cannot be returned to: {entry.adapter} is not there",
                "genome adapter list shows what is; deploy one of those",
            )


def _put(
    home: Home, adapter_id: str, now: float, kind: Kind, reason: str, job: str | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Promotion:  # fmt: skip
    manifest = adapters.manifest(home, adapter_id)
    persona = AdapterId.parse(adapter_id).persona
    if persona == "shared":
        raise Conflict(
            f"{adapter_id} is shared", "By itself it serves nobody; stacking shared adapters is not built yet"
        )
    before = current(home, persona)
    stack = with_adapter(before.stack if before else (), StackEntry(adapter=adapter_id, digest=manifest.digest))
    return _append(home, before, Promotion(
        number=0, persona=persona, kind=kind, stack=stack, builds_on=before.number if before else 0,
        reason=reason, job=job, numbers=dict(numbers or {}), created=int(now * 1000),
    ))  # fmt: skip


def _append(home: Home, before: Promotion | None, drafted: Promotion) -> Promotion:
    """Gives ``drafted`` the number after ``before`` and writes it."""
    record = drafted.model_copy(update={"number": (before.number if before else 0) + 1})
    if not files.create(_path(home, record.persona, record.number), record.to_bytes()):
        raise Conflict(f"promotion {record.number} of {record.persona} was made by someone else just now", "Try again")
    return record


def _path(home: Home, persona: str, number: int) -> Path:
    return home.promotions(persona) / f"{number:06d}.json"


def _records(home: Home, persona: str) -> list[Path]:
    directory = home.promotions(persona)
    return sorted(directory.glob("[0-9]*.json")) if directory.is_dir() else []

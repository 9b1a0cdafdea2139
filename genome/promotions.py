"""Promotion records, and what a persona's series of them means: what is served, what went bad, where a way back leads.

Pure: every function takes records. `genome.registry` reads and writes them. A ``history`` is every record of one
persona, oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from genome.adapters import AdapterId
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
    share: float = Field(1.0, gt=0, le=1)
    """Of the persona's sessions that get this stack; below 1 a canary, and the others get what ``builds_on`` names."""
    pinned: bool = False
    """While the newest record says so, nothing is promoted or rolled back but by hand."""
    quarantined: tuple[str, ...] = ()
    """Adapter ids this record withdraws for good: they are not served again unless deployed by hand."""
    created: int
    """Milliseconds since 1970."""

    @property
    def adapters(self) -> frozenset[str]:
        """Ids of the stack."""
        return frozenset(entry.adapter for entry in self.stack)

    @property
    def is_canary(self) -> bool:
        """Whether only a share of the sessions gets it."""
        return self.share < 1


@dataclass(frozen=True)
class Variant:
    """One of the stacks behind a route, with its share of the sessions relative to the others'."""

    stack: Stack
    weight: float = 1.0


Variants = tuple[Variant, ...]


def with_adapter(stack: Stack, entry: StackEntry) -> Stack:
    """``stack`` with ``entry`` in the place of its domain's adapter, or at its end."""
    kept = [entry if line(old.adapter) == line(entry.adapter) else old for old in stack]
    return tuple(kept) if entry in kept else (*kept, entry)


def line(adapter_id: str) -> tuple[str, str]:
    """(persona, domain): what all versions of one domain's adapter have in common."""
    parsed = AdapterId.parse(adapter_id)
    return parsed.persona, parsed.domain


def versions(stack: Stack) -> dict[tuple[str, str], str]:
    """By persona and domain: which version of it a stack holds."""
    return {line(entry.adapter): entry.adapter for entry in stack}


def settled(history: Sequence[Promotion]) -> Promotion | None:
    """The record whose stack sessions get that are in no canary. None: they get the base alone."""
    if not history or not history[-1].is_canary:
        return history[-1] if history else None
    return _numbered(history).get(history[-1].builds_on)


def quarantined(history: Sequence[Promotion]) -> frozenset[str]:
    """Adapter ids that were withdrawn, and not deployed by hand since."""
    found: set[str] = set()
    for promotion in history:
        found |= set(promotion.quarantined)
        if promotion.kind == "deploy":
            found -= promotion.adapters
    return frozenset(found)


def way_back(history: Sequence[Promotion], without: str = "") -> Promotion | None:
    """The record that a rollback of the newest returns to: the nearest without a quarantined version.

    ``without``: an adapter id that is about to be quarantined. None: the base alone.
    """
    numbered, gone = _numbered(history), quarantined(history) | {without}
    at = numbered.get(history[-1].builds_on)
    while at is not None and at.adapters & gone:
        at = numbered.get(at.builds_on)
    return at


def introduced(history: Sequence[Promotion], adapter_id: str) -> Promotion:
    """The first record that names ``adapter_id``, which serves now; if it was withdrawn before, the first since."""
    found: Promotion | None = None
    for promotion in history:
        if adapter_id in promotion.quarantined:
            found = None
        elif adapter_id in promotion.adapters:
            found = found or promotion
    assert found is not None, f"{adapter_id} does not serve"
    return found


def spread(history: Sequence[Promotion], adapter_id: str) -> Promotion | None:
    """The record by which a version that began as a canary went to every session.

    None: it serves all from the first record that names it, or is a canary still.
    """
    first = introduced(history, adapter_id)
    if not first.is_canary:
        return None
    since = (promotion for promotion in history if promotion.number > first.number)
    return next((each for each in since if not each.is_canary and adapter_id in each.adapters), None)


def chain_of(history: Sequence[Promotion], adapter_id: str) -> Sequence[Promotion]:
    """The records that led to ``adapter_id`` serving now: without another domain's canary that came on top."""
    everybody = settled(history)
    if everybody is None or everybody == history[-1] or adapter_id not in everybody.adapters:
        return history
    return [promotion for promotion in history if promotion.number <= everybody.number]


def predecessor(history: Sequence[Promotion], adapter_id: str) -> StackEntry | None:
    """The version of the same domain that served before ``adapter_id``, and may serve again.

    Found on the way back from the newest record. None: the domain had no adapter before.
    """
    numbered, gone = _numbered(history), quarantined(history) | {adapter_id}
    at: Promotion | None = history[-1]
    while at is not None:
        same = [entry for entry in at.stack if line(entry.adapter) == line(adapter_id)]
        if not same:
            return None
        if same[0].adapter not in gone:
            return same[0]
        at = numbered.get(at.builds_on)
    return None


def routes(promotion: Promotion, others: Stack = ()) -> dict[str, Variants]:
    """Route name → variants: the persona's whole stack, and for each domain the shared adapters with that domain's.

    A canary's routes have two variants where its stack differs from the ``others``' one, and one where it does not.
    """
    if not promotion.is_canary:
        return {name: (Variant(stack),) for name, stack in _routes(promotion.persona, promotion.stack).items()}
    new, old = _routes(promotion.persona, promotion.stack), _routes(promotion.persona, others)
    found: dict[str, Variants] = {}
    for name in (*new, *(name for name in old if name not in new)):
        # A domain without an adapter of its own falls back to its persona's route, in each variant.
        mine, theirs = new.get(name, promotion.stack), old.get(name, others)
        both = (Variant(mine, promotion.share), Variant(theirs, 1 - promotion.share))
        found[name] = (Variant(mine),) if mine == theirs else both
    return found


def _routes(persona: str, stack: Stack) -> dict[str, Stack]:
    shared = tuple(entry for entry in stack if line(entry.adapter)[0] == "shared")
    named = {persona: stack}
    for entry in stack:
        owner, domain = line(entry.adapter)
        if owner != "shared":
            named[f"{persona}/{domain}"] = (*shared, entry)
    return named


def _numbered(history: Sequence[Promotion]) -> dict[int, Promotion]:
    return {promotion.number: promotion for promotion in history}

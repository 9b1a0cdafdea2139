"""Rebuilding: to train again what a version knew, from the newest ancestor that is clean, or from the base.

A version that was trained on a retracted signal cannot unlearn it exactly; it can be made again without it (retraining
from the last clean checkpoint, as in Bourtoule et al., Machine Unlearning, 2021). The rebuild is a batch like any
other, but it has no segments: it names the archived batches whose signals it trains again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genome import adapters, batches, curriculum, promotions, provenance, registry, tombstones
from genome.adapters import AdapterId, Manifest
from genome.batches import Batch
from genome.errors import Conflict
from genome.layout import Home


@dataclass(frozen=True)
class Plan:
    parent: str | None
    """The version to go on from; None: the base."""
    again: tuple[Batch, ...]
    """Archived batches that it, and its ancestors, were not trained on."""
    missing: str = ""
    """An imported ancestor that cannot be gone on from: no batch brings it back, so nothing is to be rebuilt."""

    def is_of(self, batch: Batch) -> bool:
        return (batch.parent, batch.rebuilds) == (self.parent, tuple(old.id for old in self.again))


def plan(home: Home, persona: str, domain: str) -> Plan:
    """What brings the served version of a domain up again. Where that is clean, all is trained anew: from the base, or
    from the newest ancestor that was imported, which no batch could bring back.

    A batch whose versions were all left behind by a rollback is not brought back: only what is served is rebuilt. Where
    no version is served, that is every archived batch but those of quarantined versions.
    """
    known, taints = provenance.versions(home), provenance.taints(home)
    served = serving(home, persona, domain)
    there = {str(each) for each in adapters.list_ids(home, persona)}
    lineage = provenance.chain(known, served)
    imported = _imported(known, lineage)
    able = [each for each in lineage if each in there and each not in taints]
    parent = next((each for each in able if served in taints or each == imported), None)
    if imported and (parent is None or lineage.index(parent) > lineage.index(imported)):
        return Plan(None, (), imported)
    trained = provenance.batches_of(home, known, parent) if parent else set()
    left = _left_behind(home, persona, domain, served)
    archived = batches.archived(home, persona, domain)
    return Plan(parent, tuple(old for old in archived if old.id not in trained | left))


def queue(home: Home, persona: str, domain: str, reason: str, now: float) -> Batch | None:
    """Queues the rebuild of a domain in place of any that waits. None: nothing is left to train. Under the home's lock.

    Doing it again while nothing changed gives the one that waits. Raises Conflict where an ancestor was imported, and
    is not there to go on from or is tainted itself.
    """
    wanted = plan(home, persona, domain)
    taught = any(teaches(home, old) for old in wanted.again)
    for old in standing(home, persona, domain):
        if wanted.is_of(old) and taught:
            return old
        batches.set_aside(home, old, "another rebuild took its place")
    if wanted.missing:
        raise Conflict(
            f"{wanted.missing}, which {persona}/{domain} goes back to, was imported, and cannot be gone on from: it is "
            "not there, or retracted signals are in it",
            "Nothing can train it again: import it anew, or go back with genome adapter rollback",
        )
    if not taught:
        return None
    return batches.form_rebuild(home, list(wanted.again), wanted.parent, reason, now)


def standing(home: Home, persona: str, domain: str) -> list[Batch]:
    """Rebuilds that are queued: one, or two where a crash came between."""
    return [batch for batch in batches.queued(home, persona, domain) if batch.rebuilds]


def lost(home: Home, batch: Batch) -> set[str]:
    """Ids of batches the served version was trained on, and a rebuild was not: promoted after it was queued."""
    known, served = provenance.versions(home), serving(home, batch.persona, batch.domain)
    trained = provenance.batches_of(home, known, batch.parent) if batch.parent else set()
    archived = {old.id for old in batches.archived(home, batch.persona, batch.domain)}
    return archived & provenance.batches_of(home, known, served) - trained - set(batch.rebuilds)


def stale(home: Home, batch: Batch) -> str:
    """Why a queued rebuild is not to be trained or promoted any more: it would bring back what was taken out of service
    since, or nothing needs it. Empty: it may go on."""
    if not batch.rebuilds:
        return ""
    names, again = (batch.persona, batch.domain), set(batch.rebuilds)
    if gone := again - {old.id for old in batches.archived(home, *names)}:
        return f"it trains {', '.join(sorted(gone))} again, which is not archived any more"
    served = serving(home, *names)
    if left := again & _left_behind(home, *names, served):
        return f"it trains {', '.join(sorted(left))} again, which what serves now left behind"
    retracted = {because_of(each.signal) for each in tombstones.all_of(home, *names)}
    if batch.reason in retracted and served not in provenance.taints(home):
        return "what it was to replace is not served any more"
    return ""


def because_of(signal_id: str) -> str:
    """The reason of a rebuild that a retraction queued: once nothing tainted is served, nothing needs it."""
    return f"{signal_id} was retracted"


def teaches(home: Home, batch: Batch) -> bool:
    """Whether anything of a batch is left to train. Looks no further than to the first signal that is."""
    kept_out = {*batch.held_out, *batch.superseded}
    own = any(signal.teaches and signal.id not in kept_out for signal in batches.signals(home, batch))
    return own or bool(curriculum.training_part(home, batch))


def serving(home: Home, persona: str, domain: str) -> str:
    """The version of a domain that is served, or is to take over; empty: none."""
    return promotions.versions(registry.stack_of(home, persona)).get((persona, domain), "")


def _left_behind(home: Home, persona: str, domain: str, served: str) -> set[str]:
    """Ids of batches whose versions are all known, and none of them is served or an ancestor of what is."""
    known = provenance.versions(home)
    if not served:
        withdrawn = {each for promotion in registry.history(home, persona) for each in promotion.quarantined}
        return {made.batch for each in withdrawn if (made := known.get(each)) and made.batch}
    mine = (made for each, made in known.items() if AdapterId.parse(each).persona == persona)
    return {made.batch for made in mine if made.batch} - provenance.batches_of(home, known, served)


def _imported(known: Mapping[str, Manifest], lineage: tuple[str, ...]) -> str | None:
    """The newest version of a lineage that no batch made."""
    return next((each for each in lineage if (made := known.get(each)) is not None and not made.batch), None)

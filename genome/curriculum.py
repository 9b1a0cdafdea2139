"""What a batch teaches: which signals its job trains on, replays from earlier batches, and is judged by.

A signal that was held out is trained with the next batch, so that none is lost to measuring. A few that earlier batches
taught are reserved: never replayed, and asked of every candidate. What is kept of them is kept of the others.
"""

from __future__ import annotations

import hashlib

from genome import batches
from genome.batches import Batch
from genome.layout import Home
from genome.signals import Signal


def training_part(home: Home, batch: Batch) -> list[Signal]:
    """Its own signals but those held out, and those that earlier batches had held out. Of a rebuild: all of theirs."""
    if batch.rebuilds:
        asked = {signal.question for signal in held_out_part(home, batch)}
        lost = superseded(home, batch.persona, batch.domain)
        again = {signal.id: signal for old in batches.rebuilt(home, batch) for signal in training_part(home, old)}
        return [signal for signal in again.values() if signal.question not in asked and signal.id not in lost]
    return [*_own(home, batch), *_graduates(home, batch)]


def held_out_part(home: Home, batch: Batch) -> list[Signal]:
    if batch.rebuilds:
        rebuilt = batches.rebuilt(home, batch)
        lost = superseded(home, batch.persona, batch.domain) | {each for old in rebuilt for each in old.graduates}
        again = (signal for old in rebuilt for signal in held_out_part(home, old))
        return [signal for signal in again if signal.id not in lost]
    held_out = set(batch.held_out)
    return [signal for signal in batches.signals(home, batch) if signal.id in held_out]


def replay_part(home: Home, batch: Batch, count: int | None, reserved: int) -> list[Signal]:
    """Up to ``count`` signals that earlier batches of this domain taught, so that they are not forgotten; None: all.

    Of a part, those among the ``reserved`` that judge are left out.
    """
    if count == 0:
        return []
    known = taught_before(home, batch)
    if batch.rebuilds:
        again = {signal.question for part in (training_part, held_out_part) for signal in part(home, batch)}
        known = [signal for signal in known if signal.question not in again]
    if count is None:
        return known
    return _sample(batch, _unreserved(known, reserved), count)


def taught_before(home: Home, batch: Batch) -> list[Signal]:
    """What promoted batches of its domain were trained on, but for questions it asks or trains now, or contradicts."""
    asked = {signal.question for signal in (*batches.signals(home, batch), *_graduates(home, batch))}
    known = taught(home, batch.persona, batch.domain)
    return [signal for signal in known if signal.question not in asked and signal.id not in batch.supersedes]


def taught(home: Home, persona: str, domain: str) -> list[Signal]:
    """What promoted batches of a domain were trained on, each once, but for what was contradicted since."""
    ended = batches.archived(home, persona, domain)
    graduated = {signal for old in ended for signal in old.graduates}
    lost = superseded(home, persona, domain)
    found: dict[str, Signal] = {}
    for old in ended:
        untrained = {*old.held_out, *old.superseded} - graduated
        for signal in batches.signals(home, old):
            if signal.teaches and signal.id not in untrained and signal.id not in lost:
                found[signal.id] = signal
    return [*found.values()]


def neighbours(home: Home, batch: Batch, count: int, reserved: int) -> list[Signal]:
    """Up to ``count`` signals that promoted batches of the persona's other domains taught, but for their reserves.

    Adapters of a stack add up, so a new one must change nothing where the others answer: these are its anchors there.
    """
    found: list[Signal] = []
    for persona, domain in home.domains():
        if persona == batch.persona and domain != batch.domain:
            found += _unreserved(taught(home, persona, domain), reserved)
    return _sample(batch, found, count)


def reserve(known: list[Signal], count: int) -> list[Signal]:
    """Those of ``known`` that judge every candidate: the same as long as they are known, and at most half of them."""
    ranked = sorted(known, key=lambda signal: hashlib.sha256(signal.id.encode()).digest())
    return ranked[: min(count, len(known) // 2)]


def _unreserved(known: list[Signal], count: int) -> list[Signal]:
    kept = {signal.id for signal in reserve(known, count)}
    return [signal for signal in known if signal.id not in kept]


def _sample(batch: Batch, found: list[Signal], count: int) -> list[Signal]:
    """By a hash with the batch's id: another sample for each batch, the same at every look."""
    return sorted(found, key=lambda signal: hashlib.sha256(f"{batch.id} {signal.id}".encode()).digest())[:count]


def superseded(home: Home, persona: str, domain: str) -> set[str]:
    """Ids of signals that a later or weightier one contradicts: never to be trained on, replayed or asked again."""
    ended = batches.archived(home, persona, domain)
    lost = {signal for batch in ended for signal in batch.supersedes}
    for batch in (*ended, *batches.queued(home, persona, domain), *batches.set_aside_batches(home, persona, domain)):
        lost.update(batch.superseded)
    return lost


def _own(home: Home, batch: Batch) -> list[Signal]:
    kept_out = {*batch.held_out, *batch.superseded}
    return [signal for signal in batches.signals(home, batch) if signal.teaches and signal.id not in kept_out]


def _graduates(home: Home, batch: Batch) -> list[Signal]:
    wanted = set(batch.graduates)
    if not wanted:
        return []
    ended = batches.archived(home, batch.persona, batch.domain)
    return [signal for old in ended if wanted & set(old.held_out) for signal in batches.signals(home, old)
            if signal.id in wanted]  # fmt: skip

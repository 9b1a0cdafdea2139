"""What a batch teaches: which signals its job trains on, replays from earlier batches, and is judged by."""

from __future__ import annotations

import hashlib

from genome import batches
from genome.batches import Batch
from genome.layout import Home
from genome.signals import Signal


def training_part(home: Home, batch: Batch) -> list[Signal]:
    if batch.rebuilds:
        asked = {signal.question for signal in held_out_part(home, batch)}
        lost = superseded(home, batch.persona, batch.domain)
        again = (signal for old in batches.rebuilt(home, batch) for signal in training_part(home, old))
        return [signal for signal in again if signal.question not in asked and signal.id not in lost]
    kept_out = {*batch.held_out, *batch.superseded}
    return [signal for signal in batches.signals(home, batch) if signal.teaches and signal.id not in kept_out]


def held_out_part(home: Home, batch: Batch) -> list[Signal]:
    if batch.rebuilds:
        lost = superseded(home, batch.persona, batch.domain)
        again = (signal for old in batches.rebuilt(home, batch) for signal in held_out_part(home, old))
        return [signal for signal in again if signal.id not in lost]
    held_out = set(batch.held_out)
    return [signal for signal in batches.signals(home, batch) if signal.id in held_out]


def replay_part(home: Home, batch: Batch, count: int) -> list[Signal]:
    """Up to ``count`` signals that earlier batches of this domain taught, so that they are not forgotten.

    Chosen by a hash with this batch's id: another sample each time, the same at every look.
    """
    if count == 0:
        return []
    held_out = {signal.question for signal in held_out_part(home, batch)}
    lost = superseded(home, batch.persona, batch.domain) | set(batch.supersedes)
    earlier = [
        signal
        for old in batches.archived(home, batch.persona, batch.domain)
        if old.id not in batch.rebuilds
        for signal in training_part(home, old)
        if signal.question not in held_out and signal.id not in lost
    ]
    return sorted(earlier, key=lambda signal: hashlib.sha256(f"{batch.id} {signal.id}".encode()).digest())[:count]


def superseded(home: Home, persona: str, domain: str) -> set[str]:
    """Ids of signals that a later or weightier one contradicts: never to be trained on, replayed or asked again."""
    ended = batches.archived(home, persona, domain)
    lost = {signal for batch in ended for signal in batch.supersedes}
    for batch in (*ended, *batches.queued(home, persona, domain), *batches.set_aside_batches(home, persona, domain)):
        lost.update(batch.superseded)
    return lost

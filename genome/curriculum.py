"""What a batch teaches: which signals its job trains on, replays from earlier batches, and is judged by.

A signal that was held out is trained with the next batch, so that none is lost to measuring. A few that earlier batches
taught are reserved: never replayed, and asked of every candidate. What is kept of them is kept of the others.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Sequence

from genome import batches, replay
from genome.batches import Batch
from genome.layout import Home
from genome.lines import Line, from_signal, to_signal
from genome.replay import Lesson, Weighed
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


def replay_part(
    home: Home, batch: Batch, count: int | None, reserved: int, half_life_days: float = math.inf
) -> list[Signal]:
    """Up to ``count`` signals that earlier batches of this domain taught, so that they are not forgotten; None: all.

    Of a part, those among the ``reserved`` that judge are left out, and the others drawn as `genome.replay` weighs
    them: by their age too, where ``half_life_days`` says so.
    """
    if count == 0:
        return []
    known = _taught_before(home, batch)
    if batch.rebuilds:
        again = _questions(signal for part in (training_part, held_out_part) for signal in part(home, batch))
        known = [lesson for lesson in known if lesson.line.question not in again]
    if count is None:
        return [to_signal(lesson.line) for lesson in known]
    asked = replay.recalled(home, batch.persona, batch.domain)
    weighed = list(replay.weigh(known, asked, batch.created, half_life_days))
    return list(map(to_signal, replay.draw(_unreserved(weighed, reserved), count, batch.id)))


def taught_before(home: Home, batch: Batch) -> list[Line]:
    """What promoted batches of its domain were trained on, but for questions it asks or trains now, or contradicts."""
    return [lesson.line for lesson in _taught_before(home, batch)]


def taught(home: Home, persona: str, domain: str) -> list[Line]:
    """What promoted batches of a domain were trained on, each once, but for what was contradicted since."""
    return [lesson.line for lesson in _taught(home, persona, domain)]


def anchored(
    home: Home, batch: Batch, count: int, reserved: int, half_life_days: float = math.inf, own: bool = False
) -> list[Signal]:
    """Up to ``count`` signals that earlier batches of the persona taught, but for their reserves, drawn as what is
    replayed is. A new adapter is to change nothing there: they are its anchors, held to what serves.

    Of the other domains, since adapters of a stack add up; and of its ``own``, where it goes on from what serves.
    """
    if count == 0:
        return []
    found: list[Weighed] = []
    for persona, domain in home.domains():
        if persona != batch.persona or (domain == batch.domain and not own):
            continue
        taught = _taught_before(home, batch) if domain == batch.domain else _taught(home, persona, domain)
        weighed = replay.weigh(taught, replay.recalled(home, persona, domain), batch.created, half_life_days)
        found += _unreserved(list(weighed), reserved)
    return list(map(to_signal, replay.draw(found, count, batch.id)))


def reserve(known: Sequence[Line], count: int) -> list[Line]:
    """Those of ``known`` that judge every candidate: the same as long as they are known, and at most half of them."""
    wanted = min(count, len(known) // 2)
    return heapq.nsmallest(wanted, known, key=lambda line: hashlib.sha256(line.id.encode()).digest())


def _taught_before(home: Home, batch: Batch) -> list[Lesson]:
    asked = _questions((*batches.signals(home, batch), *_graduates(home, batch)))
    known = _taught(home, batch.persona, batch.domain)
    contradicted = set(batch.supersedes)
    return [each for each in known if each.line.id not in contradicted and each.line.question not in asked]


def _taught(home: Home, persona: str, domain: str) -> list[Lesson]:
    ended = batches.archived(home, persona, domain)
    graduated = {signal for old in ended for signal in old.graduates}
    lost = superseded(home, persona, domain)
    found: dict[str, Lesson] = {}
    for old in ended:
        untrained = {*old.held_out, *old.superseded} - graduated
        for line in batches.lines(home, old):
            if line.teaches and line.id not in untrained and line.id not in lost:
                found[line.id] = Lesson(line, old.id)
    return [*found.values()]


def _questions(signals: Iterable[Signal]) -> set[bytes]:
    return {from_signal(signal).question for signal in signals}


def _unreserved(weighed: Sequence[Weighed], count: int) -> list[Weighed]:
    kept = {line.id for line in reserve([line for _, line in weighed], count)}
    return [each for each in weighed if each[1].id not in kept]


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

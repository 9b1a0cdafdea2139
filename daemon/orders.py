"""Orders: a batch is formed and its job written. The planner does it when a trigger is due, a verb at any time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from daemon import anchors
from daemon.trainers import catalog
from genome import (
    batches,
    curriculum,
    files,
    jobs,
    promotions,
    quality,
    rebuilding,
    registry,
    retraction,
    verdicts,
)
from genome.batches import Batch, HeldOutPolicy
from genome.config import Config, Rung
from genome.errors import Conflict, NotFound
from genome.jobs import Example, Job
from genome.layout import Home
from genome.quality import Verdict
from genome.signals import Signal

GROWTH = 1.25
"""× the examples of a batch that could not be judged: with fewer new ones it would be trained again for nothing."""


def form(home: Home, config: Config, persona: str, domain: str, reason: str) -> Batch | None:
    """Seals what is pending into a batch; also `genome buffer flush`."""
    gate = config.gate
    with files.locked(home.lock):  # the gate moves what has ended
        spread = verdicts.Newest(home).spread(persona, domain)
    # A candidate that changed little shows little spread, and the next may change much.
    questions = gate.bar().questions(max(spread or quality.TYPICAL_SPREAD, quality.TYPICAL_SPREAD / 2))
    policy = HeldOutPolicy(gate.held_out_fraction, max(questions, gate.min_held_out), gate.min_held_out)
    return batches.form(home, persona, domain, reason, time.time(), policy)


def wanted(config: Config, last: Verdict | None) -> int:
    """Examples that must wait before a domain is tried again, by its newest verdict: 0 unless that could not tell."""
    if last is None or last.promote or not last.undecided:
        return 0
    return max(math.ceil(last.needed / config.gate.held_out_fraction), math.ceil(GROWTH * last.examples))


def fewest(config: Config) -> int:
    """Questions a batch needs, so that enough of them can be held out to judge by."""
    return math.ceil(config.gate.min_held_out / config.gate.held_out_fraction)


def order(home: Home, config: Config, batch: Batch, base: Path, fingerprint: str, held: bool = False) -> Job:
    """Writes the job of a batch; the same batch always gives the same job, until that was refused.

    Then it is tried again as the next rung of ``gate.ladder`` says.
    """
    attempt = jobs.refused(home, batch.id) + 1
    rung = config.gate.ladder[attempt - 2] if 1 < attempt <= len(config.gate.ladder) + 1 else Rung()
    job = _job(home, config, batch, rung, (base, fingerprint)).model_copy(
        update={"id": jobs.next_id(home, batch.id), "attempt": attempt}
    )
    directory = jobs.create(home, job, _examples(home, config, batch, fingerprint, rung), held)
    retraction.recheck(home, directory)
    return job


def probe(home: Home, config: Config, batch: Batch, part: tuple[tuple[str, ...], int], base: tuple[Path, str]) -> Job:
    """Writes the job that trains a part of a refused batch: (ids, number of the probe), (base, its fingerprint)."""
    wanted, number = part
    job = _job(home, config, batch, Rung(), base).model_copy(
        update={"id": jobs.probe_id(batch.id, number), "part": wanted}
    )
    own = {signal.id for signal in curriculum.training_part(home, batch)} - set(wanted)
    examples = _examples(home, config, batch, base[1], Rung())
    directory = jobs.create(home, job, (each for each in examples if each.id not in own))
    retraction.recheck(home, directory)
    return job


def _job(home: Home, config: Config, batch: Batch, rung: Rung, base: tuple[Path, str]) -> Job:
    serves = promotions.versions(registry.stack_of(home, batch.persona)).get((batch.persona, batch.domain))
    parent = None if rung.fresh else serves
    if batch.rebuilds:
        parent = batch.parent
    settings = config.training.settings()
    factors = {
        "learning_rate": settings.learning_rate * rung.learning_rate,
        "epochs": settings.epochs * rung.epochs,
        "anchor_weight": settings.anchor_weight * rung.anchors,
    }
    return Job(
        id=jobs.job_id(batch.id),
        persona=batch.persona,
        domain=batch.domain,
        batch=batch.id,
        replaces=serves,
        trainer=catalog.resolve(config.training.trainer, config.training.command),
        base=str(base[0]),
        base_fingerprint=base[1],
        parent=parent,
        parent_path=str(home.adapter(parent)) if parent else None,
        settings=settings.model_copy(update=factors),
        created=int(time.time() * 1000),
    )


def rebuild(home: Home, persona: str, domain: str, reason: str) -> Batch:
    """Queues a batch that trains a domain's served version again: `genome.rebuilding.plan` says from where."""
    with files.locked(home.lock):
        waits = {batch.id for batch in rebuilding.standing(home, persona, domain)}
        under_way = [directory.id for directory in jobs.active(home) if (job := directory.job()).batch not in waits
                     and not job.part and (job.persona, job.domain) == (persona, domain)]  # fmt: skip
        if under_way:
            raise Conflict(
                f"{under_way[0]} of {persona}/{domain} is under way, and a rebuild would lack what it teaches",
                "Wait for it: genome training status --watch",
            )
        batch = rebuilding.queue(home, persona, domain, reason, time.time())
    if batch is None:
        raise NotFound(f"{persona}/{domain} has no archived batch to train again", "genome buffer status shows them")
    return batch


def _examples(home: Home, config: Config, batch: Batch, fingerprint: str, rung: Rung) -> Iterator[Example]:
    """What the trainer sees: the batch's train part, some of what earlier batches taught, and anchors."""
    reserved, new = config.gate.recall_examples, curriculum.training_part(home, batch)
    replayed = None if rung.fresh else int(len(new) * config.training.replay_fraction * rung.replay)
    for signal in [*new, *curriculum.replay_part(home, batch, replayed, reserved)]:
        yield Example(id=signal.id, messages=_messages(signal), weight=signal.weight)
    if config.training.anchor_weight:
        for anchor in anchors.training(home, config, fingerprint):
            yield Example(id=anchor.id, prompt=anchor.prompt, response=anchor.answer, anchor=True)
        for signal in curriculum.neighbours(home, batch, config.training.neighbour_anchors, reserved):
            yield Example(id=signal.id, messages=_messages(signal), anchor=True)


def _messages(signal: Signal) -> list[dict[str, str]]:
    answer = {"role": "assistant", "content": signal.correct_output or ""}
    return [*(turn.model_dump() for turn in signal.prompt()), answer]

"""Orders: a batch is formed and its job written. The planner does it when a trigger is due, a verb at any time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from daemon import anchors, footprints
from daemon.trainers import catalog
from genome import (
    adapters,
    bases,
    batches,
    copies,
    curriculum,
    files,
    jobs,
    promotions,
    quality,
    rebuilding,
    registry,
    rehearsals,
    retraction,
    validation,
    verdicts,
)
from genome.bases import Described
from genome.batches import Batch, HeldOutPolicy
from genome.config import Config, Rung
from genome.errors import Conflict, NotFound
from genome.layout import Home
from genome.promotions import StackEntry
from genome.quality import Verdict
from genome.signals import Signal
from genome.training import Beside, Example, Job, TrainingSettings

GROWTH = 1.25
"""× the examples of a batch that could not be judged: with fewer new ones it would be trained again for nothing."""


def check_base(config: Config, base: Path) -> None:
    """Raises InvalidConfig where what is to be trained on cannot be the base, or its trainer cannot read it."""
    path = copies.resolve(base, config.training.base, "training.base")
    if library := catalog.library(config.training.trainer):
        copies.check_readable(path, library)


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

    Then it is tried again as the next rung of ``gate.ladder`` says. Raises InvalidAdapter where the persona serves what
    was made for another base.
    """
    attempt = jobs.refused(home, batch.id) + 1
    rung = _rung(config, attempt)
    job = _job(home, config, batch, rung, (base, fingerprint)).model_copy(
        update={"id": jobs.next_id(home, batch.id), "attempt": attempt}
    )
    directory = jobs.create(home, job, _examples(home, config, batch, job, rung), held)
    retraction.recheck(home, directory)
    return job


def is_current(config: Config, job: Job, base: Path, fingerprint: str) -> bool:
    """Whether a job would be ordered as it was: by this trainer, with these settings, on this base and copy of it."""
    copy = str(copies.resolve(base, config.training.base, "training.base"))
    trainer = catalog.resolve(config.training.trainer, config.training.command)
    settings = _settings(config, base, _rung(config, job.attempt))
    ordered = (job.trainer, job.settings, job.base, job.base_fingerprint)
    return (trainer, settings, copy, fingerprint) == ordered


def probe(home: Home, config: Config, batch: Batch, part: tuple[tuple[str, ...], int], base: tuple[Path, str]) -> Job:
    """Writes the job that trains a part of a refused batch: (ids, number of the probe), (base, its fingerprint)."""
    wanted, number = part
    job = _job(home, config, batch, Rung(), base).model_copy(
        update={"id": jobs.probe_id(batch.id, number), "part": wanted}
    )
    own = {signal.id for signal in curriculum.training_part(home, batch)} - set(wanted)
    # All of the part is trained on: what is searched for must not hide among what is only measured by.
    part_of = (each.model_copy(update={"validation": False})
               for each in _examples(home, config, batch, job, Rung()) if each.id not in own)  # fmt: skip
    directory = jobs.create(home, job, part_of)
    retraction.recheck(home, directory)
    return job


def _job(home: Home, config: Config, batch: Batch, rung: Rung, base: tuple[Path, str]) -> Job:
    stack, own = registry.stack_of(home, batch.persona), (batch.persona, batch.domain)
    serves = promotions.versions(stack).get(own)
    parent = None if rung.fresh else serves
    if batch.rebuilds:
        parent = batch.parent
    trainer = catalog.resolve(config.training.trainer, config.training.command)
    trained_on = _trained_on(config, base, trainer)
    beside = tuple(_beside(home, entry) for entry in stack if entry.adapter != serves)
    for adapter in (*((parent,) if parent else ()), *(each.adapter for each in beside)):
        adapters.made_for(home, adapter, base[1])
    return Job(
        id=jobs.job_id(batch.id),
        persona=batch.persona,
        domain=batch.domain,
        batch=batch.id,
        replaces=serves,
        trainer=trainer,
        base=trained_on.path,
        base_fingerprint=base[1],
        copy_of=str(base[0]) if config.training.base else None,
        trained_on=trained_on,
        parent=parent,
        parent_path=str(home.adapter(parent)) if parent else None,
        beside=beside,
        settings=_settings(config, base[0], rung),
        created=int(time.time() * 1000),
    )


def _rung(config: Config, attempt: int) -> Rung:
    return config.gate.ladder[attempt - 2] if 1 < attempt <= len(config.gate.ladder) + 1 else Rung()


def _settings(config: Config, base: Path, rung: Rung) -> TrainingSettings:
    settings = config.training.settings(base)
    factors = {
        "learning_rate": settings.learning_rate * rung.learning_rate,
        "epochs": settings.epochs * rung.epochs,
        "anchor_weight": settings.anchor_weight * rung.anchors,
    }
    return settings.model_copy(update=factors)


def _beside(home: Home, entry: StackEntry) -> Beside:
    return Beside(adapter=entry.adapter, path=str(home.adapter(entry.adapter)), scale=entry.scale)


def _trained_on(config: Config, base: tuple[Path, str], trainer: str) -> Described:
    """The base, or the copy of it that is trained on; in fewer bits where the trainer reads it so."""
    if config.training.base:
        found = bases.describe(copies.resolve(base[0], config.training.base, "training.base"))
    else:
        found = Described(path=str(base[0]), fingerprint=base[1], quantisation=bases.quantisation(base[0]))
    if found.quantisation.method == "none" and footprints.packs(trainer):
        return found.model_copy(update={"quantisation": bases.LOADED_IN_FOUR_BITS})
    return found


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


def _examples(home: Home, config: Config, batch: Batch, job: Job, rung: Rung) -> Iterator[Example]:
    """What the trainer sees: the batch's train part, some of what earlier batches taught, anchors and a rehearsal."""
    reserved, new = config.gate.recall_examples, curriculum.training_part(home, batch)
    half_life = config.training.replay_half_life_days
    replayed = None if rung.fresh else int(len(new) * config.training.replay_fraction * rung.replay)
    # A service measures nothing of ours: there, what is only measured on would be kept from it for nothing.
    fraction = 0.0 if catalog.is_remote(job.trainer) else config.training.validation_fraction
    measured = validation.chosen(new, fraction, batch.id)
    for signal in [*new, *curriculum.replay_part(home, batch, replayed, reserved, half_life)]:
        yield Example(
            id=signal.id, messages=_messages(signal), weight=signal.weight, rejected=_rejected(signal),
            validation=signal.id in measured,
        )  # fmt: skip
    if config.training.anchor_weight:
        for anchor in anchors.training(home, config, job.base_fingerprint):
            yield Example(id=anchor.id, prompt=anchor.prompt, response=anchor.answer, anchor=True)
        for each in rehearsals.of_parent(home, job)[: config.training.rehearsal]:
            yield Example(id=each.id, prompt=each.prompt, response=each.answer, anchor=True, teacher="parent")
        wanted, goes_on = config.training.taught_anchors, job.parent is not None and not batch.rebuilds
        for signal in curriculum.anchored(home, batch, wanted, reserved, half_life, own=goes_on):
            yield Example(id=signal.id, messages=_messages(signal), anchor=True, teacher="parent")


def _messages(signal: Signal) -> list[dict[str, str]]:
    answer = {"role": "assistant", "content": signal.correct_output or ""}
    return [*(turn.model_dump() for turn in signal.prompt()), answer]


def _rejected(signal: Signal) -> str | None:
    """The wrong answer, where it can be told from the right one."""
    wrong = (signal.wrong_output or "").strip()
    return signal.wrong_output if wrong and wrong != (signal.correct_output or "").strip() else None

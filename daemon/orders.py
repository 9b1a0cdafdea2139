"""Orders: a batch is formed and its job written. The planner does it when a trigger is due, a verb at any time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from daemon import anchors
from daemon.trainers import catalog
from genome import adapters, batches, curriculum, files, jobs, rebuilding, registry, retraction
from genome.batches import Batch, HeldOutPolicy
from genome.config import Config
from genome.errors import Conflict, NotFound
from genome.jobs import Example, Job, JobDirectory
from genome.layout import Home


def form(home: Home, config: Config, persona: str, domain: str, reason: str) -> Batch | None:
    """Seals what is pending into a batch; also `genome buffer flush`."""
    gate = config.gate
    policy = HeldOutPolicy(gate.held_out_fraction, gate.held_out_examples, gate.min_held_out)
    return batches.form(home, persona, domain, reason, time.time(), policy)


def fewest(config: Config) -> int:
    """Questions a batch needs, so that enough of them can be held out to judge by."""
    return math.ceil(config.gate.min_held_out / config.gate.held_out_fraction)


def order(home: Home, config: Config, batch: Batch, base: Path, fingerprint: str, held: bool = False) -> Job:
    """Writes the job of a batch; the same batch always gives the same job."""
    stack = registry.stack_of(home, batch.persona)
    lines = {(parsed.persona, parsed.domain): str(parsed) for parsed in
             (adapters.AdapterId.parse(entry.adapter) for entry in stack)}  # fmt: skip
    parent = batch.parent if batch.rebuilds else lines.get((batch.persona, batch.domain))
    job = Job(
        id=next_job_id(home, batch),
        persona=batch.persona,
        domain=batch.domain,
        batch=batch.id,
        trainer=catalog.resolve(config.training.trainer),
        base=str(base),
        base_fingerprint=fingerprint,
        parent=parent,
        parent_path=str(home.adapter(parent)) if parent else None,
        settings=config.training.settings(),
        created=int(time.time() * 1000),
    )
    directory = jobs.create(home, job, _examples(home, config, batch, fingerprint), held)
    retraction.recheck(home, directory)
    return job


def job_id(batch: Batch, attempt: int = 1) -> str:
    return f"job-{batch.id.removeprefix('batch-')}{f'.{attempt}' if attempt > 1 else ''}"


def next_job_id(home: Home, batch: Batch) -> str:
    """Of the attempt that is due: another one after each that was withdrawn."""
    attempt = 1
    while (ended := JobDirectory(home.completed_jobs / job_id(batch, attempt)).result()) and ended.withdrawn:
        attempt += 1
    return job_id(batch, attempt)


def rebuild(home: Home, persona: str, domain: str, reason: str) -> Batch:
    """Queues a batch that trains a domain's served version again: `genome.rebuilding.plan` says from where."""
    with files.locked(home.lock):
        waits = {batch.id for batch in rebuilding.standing(home, persona, domain)}
        under_way = [directory.id for directory in jobs.active(home) if (job := directory.job()).batch not in waits
                     and (job.persona, job.domain) == (persona, domain)]  # fmt: skip
        if under_way:
            raise Conflict(
                f"{under_way[0]} of {persona}/{domain} is under way, and a rebuild would lack what it teaches",
                "Wait for it: genome training status --watch",
            )
        batch = rebuilding.queue(home, persona, domain, reason, time.time())
    if batch is None:
        raise NotFound(f"{persona}/{domain} has no archived batch to train again", "genome buffer status shows them")
    return batch


def _examples(home: Home, config: Config, batch: Batch, fingerprint: str) -> Iterator[Example]:
    """What the trainer sees: the batch's train part, some of what earlier batches taught, and anchors."""
    new = curriculum.training_part(home, batch)
    for signal in [*new, *curriculum.replay_part(home, batch, int(len(new) * config.training.replay_fraction))]:
        turns = [turn.model_dump() for turn in signal.prompt()]
        answer = {"role": "assistant", "content": signal.correct_output or ""}
        yield Example(id=signal.id, messages=[*turns, answer], weight=signal.weight)
    if config.training.anchor_weight:
        training, _ = anchors.split(anchors.read(home, fingerprint))
        for anchor in training:
            yield Example(id=anchor.id, prompt=anchor.prompt, response=anchor.answer, anchor=True)

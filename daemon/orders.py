"""Orders: a batch is formed and its job written. The planner does it when a trigger is due, a verb at any time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from daemon import anchors
from daemon.trainers import catalog
from genome import adapters, batches, curriculum, jobs, registry
from genome.batches import Batch, HeldOutPolicy
from genome.config import Config
from genome.jobs import Example, Job
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
    parent = lines.get((batch.persona, batch.domain))
    job = Job(
        id=job_id(batch),
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
    jobs.create(home, job, _examples(home, config, batch, fingerprint), held)
    return job


def job_id(batch: Batch) -> str:
    return f"job-{batch.id.removeprefix('batch-')}"


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

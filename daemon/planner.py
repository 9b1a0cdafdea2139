"""The planner loop: asks the triggers, seals batches, and orders one job a domain at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from daemon import anchors
from daemon.events import Alarm, Announcer
from daemon.trainers import catalog
from daemon.worker_client import WorkerClient
from genome import adapters, batches, files, jobs, registry, triggers
from genome.batches import Batch, HeldOutPolicy
from genome.config import Config
from genome.errors import Damaged
from genome.jobs import Example, Job
from genome.layout import Home
from genome.pending import Pending, Tally
from genome.triggers import Decision


@dataclass
class Planner:
    home: Home
    config: Config
    base_path: Path
    base_fingerprint: str
    worker: WorkerClient
    announcer: Announcer
    runner: Alarm
    waiting: dict[str, str] = field(default_factory=dict)
    """By persona/domain: what its triggers miss, for `genome status`."""
    tally: Tally = field(default_factory=Tally)
    too_few: dict[str, Pending] = field(default_factory=dict)
    """By persona/domain: what waited when no batch came of it. Nothing is sealed again until more does."""

    name = "planner"

    async def step(self) -> float | None:
        """Forms what is due and orders the jobs that may run. Returns when time alone could make something due."""
        formed, look_again = await anyio.to_thread.run_sync(self._form_due)
        for batch in formed:
            self.announcer.tell(
                "batch_formed", batch=batch.id, persona=batch.persona, domain=batch.domain,
                signals=batch.signals, held_out=len(batch.held_out), reason=batch.reason,
            )  # fmt: skip
        for batch in await anyio.to_thread.run_sync(unordered, self.home):
            await anchors.ensure(self.home, self.config, self.base_fingerprint, self.worker, self.announcer)
            job = await anyio.to_thread.run_sync(self._order, batch)
            self.announcer.tell("job_ordered", job=job.id, batch=batch.id, trainer=job.trainer, parent=job.parent)
            self.runner.ring()
        return look_again

    def _form_due(self) -> tuple[list[Batch], float | None]:
        formed, looks = [], []
        for persona, domain in self.home.domains():
            try:
                decision, batch = self._decide(persona, domain)
            except Damaged as error:  # the other domains go on
                self.waiting[f"{persona}/{domain}"] = str(error)
                continue
            self.waiting[f"{persona}/{domain}"] = decision.reason
            if batch is not None:
                formed.append(batch)
            elif decision.due:
                self.waiting[f"{persona}/{domain}"] += (
                    f"; but fewer than {fewest(self.config)} questions, too few to judge by"
                )
            elif decision.look_again is not None:
                looks.append(decision.look_again)
        return formed, min(looks, default=None)

    def _decide(self, persona: str, domain: str) -> tuple[Decision, Batch | None]:
        pending = self.tally.pending(self.home, persona, domain)
        decision = triggers.decide(self.config.triggers_for(persona), pending, time.time())
        place = f"{persona}/{domain}"
        if not decision.due or self.too_few.get(place) == pending:
            return decision, None
        batch = form(self.home, self.config, persona, domain, decision.reason)
        if batch is None:
            self.too_few[place] = pending
        return decision, batch

    def _order(self, batch: Batch) -> Job:
        return order(self.home, self.config, batch, self.base_path, self.base_fingerprint)


def form(home: Home, config: Config, persona: str, domain: str, reason: str) -> Batch | None:
    """Seals what is pending into a batch; also `genome buffer flush`."""
    gate = config.gate
    policy = HeldOutPolicy(gate.held_out_fraction, gate.held_out_examples, gate.min_held_out)
    return batches.form(home, persona, domain, reason, time.time(), policy)


def fewest(config: Config) -> int:
    """Questions a batch needs, so that enough of them can be held out to judge by."""
    return math.ceil(config.gate.min_held_out / config.gate.held_out_fraction)


def unordered(home: Home) -> list[Batch]:
    """Queued batches that want a job now: one a domain, and none while the domain's last is under way."""
    with files.locked(home.lock):  # the gate and the runner move what has ended
        known = {directory.id for directory in jobs.completed(home)}
        busy = {(job.persona, job.domain) for job in (directory.job() for directory in jobs.active(home))}
        waiting = batches.all_queued(home)
    chosen = []
    for batch in waiting:
        if (batch.persona, batch.domain) not in busy and job_id(batch) not in known:
            busy.add((batch.persona, batch.domain))
            chosen.append(batch)
    return chosen


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
    new = batches.training_part(home, batch)
    for signal in [*new, *batches.replay_part(home, batch, int(len(new) * config.training.replay_fraction))]:
        turns = [turn.model_dump() for turn in signal.prompt()]
        answer = {"role": "assistant", "content": signal.correct_output or ""}
        yield Example(id=signal.id, messages=[*turns, answer], weight=signal.weight)
    if config.training.anchor_weight:
        training, _ = anchors.split(anchors.read(home, fingerprint))
        for anchor in training:
            yield Example(id=anchor.id, prompt=anchor.prompt, response=anchor.answer, anchor=True)

"""The planner loop: asks the triggers, seals batches, and orders one job a domain at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from daemon import anchors, orders
from daemon.events import Alarm, Announcer
from daemon.worker_client import WorkerClient
from genome import batches, files, jobs, triggers
from genome.batches import Batch
from genome.config import Config
from genome.errors import Damaged
from genome.jobs import Job
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
                    f"; but fewer than {orders.fewest(self.config)} questions, too few to judge by"
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
        batch = orders.form(self.home, self.config, persona, domain, decision.reason)
        if batch is None:
            self.too_few[place] = pending
        return decision, batch

    def _order(self, batch: Batch) -> Job:
        return orders.order(self.home, self.config, batch, self.base_path, self.base_fingerprint)


def unordered(home: Home) -> list[Batch]:
    """Queued batches that want a job now: one a domain, and none while the domain's last is under way."""
    with files.locked(home.lock):  # the gate and the runner move what has ended
        known = {directory.id for directory in jobs.completed(home)}
        busy = {(job.persona, job.domain) for job in (directory.job() for directory in jobs.active(home))}
        waiting = batches.all_queued(home)
    chosen = []
    for batch in waiting:
        if (batch.persona, batch.domain) not in busy and orders.next_job_id(home, batch) not in known:
            busy.add((batch.persona, batch.domain))
            chosen.append(batch)
    return chosen

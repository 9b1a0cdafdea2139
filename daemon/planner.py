"""The planner loop: asks the triggers, seals batches, and orders one job a domain at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio.to_thread

from daemon import anchors, orders
from daemon.events import Alarm, Alarms, Announcer
from daemon.worker_client import WorkerClient
from genome import batches, files, jobs, retraction, trigger_facts, triggers
from genome.batches import Batch
from genome.config import Config
from genome.errors import Damaged, GenomeError, InvalidAdapter
from genome.layout import Home
from genome.pending import Pending, Tally
from genome.training import Job
from genome.trigger_facts import Samples
from genome.triggers import Plan
from genome.verdicts import Newest

Rebuild = Callable[[str, str, str], object]
"""(persona, domain, reason): has a domain trained anew from its archive. Raises GenomeError where it cannot."""


@dataclass
class Planner:
    home: Home
    config: Config
    base_path: Path
    base_fingerprint: str
    worker: WorkerClient
    announcer: Announcer
    runner: Alarm | Alarms
    samples: Samples = trigger_facts.no_samples
    rebuild: Rebuild | None = None
    clock: Callable[[], float] = time.time
    waiting: dict[str, str] = field(default_factory=dict)
    """By persona/domain: what its triggers miss, for `genome status`."""
    tally: Tally = field(default_factory=Tally)
    nothing: dict[str, tuple[Pending, str]] = field(default_factory=dict)
    """By persona/domain: what waited when nothing came of what was due, and why. Nothing is sealed until more waits."""
    news: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """What is to be told: found in a thread, and watchers are served by the event loop."""
    verdicts: Newest = field(init=False)
    watched_since: float = field(init=False)
    """A scheduled run before it was missed."""

    name = "planner"

    def __post_init__(self) -> None:
        self.verdicts, self.watched_since = Newest(self.home), self.clock()

    async def step(self) -> float | None:
        """Forms what is due and orders the jobs that may run. Returns when time alone could make something due. A batch
        that no job can be ordered for holds up none of the others."""
        try:
            look_again = await anyio.to_thread.run_sync(self._form_due)
        finally:
            while self.news:
                name, facts = self.news.pop(0)
                self.announcer.tell(name, **facts)
        failed: InvalidAdapter | None = None
        for batch in await anyio.to_thread.run_sync(unordered, self.home):
            await anchors.ensure(self.home, self.config, self.base_fingerprint, self.worker, self.announcer)
            try:
                job = await anyio.to_thread.run_sync(self._order, batch)
            except InvalidAdapter as error:
                failed = failed or error
                continue
            self.announcer.tell("job_ordered", job=job.id, batch=batch.id, trainer=job.trainer, parent=job.parent)
            self.runner.ring()
        if failed is not None:
            raise failed
        return look_again

    def _form_due(self) -> float | None:
        looks = []
        for persona, domain in self.home.domains():
            place = f"{persona}/{domain}"
            try:
                plan, pending = self._look(persona, domain)
                if plan.start:
                    batch = self._act(plan, pending)
                    plan, pending = self._look(persona, domain)  # what is remembered of it, and when time comes next
                    looks += [self.clock()] if batch and plan.start else []
            except Damaged as error:  # the other domains go on
                self.waiting[place] = str(error)
                continue
            waited, why = self.nothing.get(place, (None, ""))
            self.waiting[place] = f"{plan.reason}; but {why}" if waited == pending else plan.reason
            looks += [plan.look_again] if plan.look_again is not None else []
        return min(looks, default=None)

    def _look(self, persona: str, domain: str) -> tuple[Plan, Pending]:
        """Asks the triggers of a domain, and remembers what they saw."""
        settings, now = self.config.triggers_for(persona, domain), self.clock()
        pending = self.tally.pending(self.home, persona, domain)
        facts = trigger_facts.gather(self.home, settings, pending, self.samples, now)
        with files.locked(self.home.lock):  # the gate moves what has ended
            last = self.verdicts.of(persona, domain)
        facts = replace(facts, watched_since=self.watched_since, wanted=orders.wanted(self.config, last))
        plan = triggers.look(settings, facts, now)
        if plan.memory != facts.memory:
            trigger_facts.remember(self.home, persona, domain, plan.memory)
        if (turn := plan.turn) is not None:
            facts_of_it = {"metric": turn.metric, "value": turn.value, "threshold": turn.threshold}
            self._note("quality_dropped" if turn.dropped else "quality_recovered", pending, **facts_of_it,
                       samples=turn.samples)  # fmt: skip
        return plan, pending

    def _act(self, plan: Plan, pending: Pending) -> Batch | None:
        """Forms a batch, or has the domain rebuilt. Says why, where nothing comes of it."""
        place = f"{pending.persona}/{pending.domain}"
        why: str | None = f"fewer than {orders.fewest(self.config)} questions, too few to judge by"
        if plan.decision.rebuild:
            why = self._rebuild(plan, pending)
        elif self.nothing.get(place, (None, ""))[0] != pending:
            batch = orders.form(self.home, self.config, pending.persona, pending.domain, plan.decision.reason)
            if batch is not None:
                self.nothing.pop(place, None)
                self._note("batch_formed", pending, batch=batch.id, signals=batch.signals,
                           held_out=len(batch.held_out), reason=batch.reason)  # fmt: skip
                return batch
        if why is None:
            self.nothing.pop(place, None)
        else:
            self._came_to_nothing(plan, pending, why)
        return None

    def _rebuild(self, plan: Plan, pending: Pending) -> str | None:
        """Why there is none. Remembered first: one lost to a crash comes at the next time, two train for hours."""
        trigger_facts.remember(self.home, pending.persona, pending.domain, plan.after)
        if self.rebuild is None:
            return "this daemon rebuilds nothing"
        try:
            self.rebuild(pending.persona, pending.domain, plan.decision.reason)
        except Damaged:
            raise
        except GenomeError as error:
            return str(error)
        return None

    def _came_to_nothing(self, plan: Plan, pending: Pending, why: str) -> None:
        """A scheduled run that finds too little is over; what else is due stays so. Told once."""
        place = f"{pending.persona}/{pending.domain}"
        if plan.after != plan.memory:
            trigger_facts.remember(self.home, pending.persona, pending.domain, plan.after)
        if plan.decision.trigger == "scheduled":
            why = f"{plan.decision.reason} came to nothing: {why}"
        if self.nothing.get(place, (None, ""))[1] != why:
            self._note("came_to_nothing", pending, reason=why)
        self.nothing[place] = (pending, why)

    def _note(self, name: str, of: Pending, **facts: Any) -> None:
        self.news.append((name, {"persona": of.persona, "domain": of.domain, **facts}))

    def _order(self, batch: Batch) -> Job:
        return orders.order(self.home, self.config, batch, self.base_path, self.base_fingerprint)


def unordered(home: Home) -> list[Batch]:
    """Queued batches that want a job now: one a domain, and none while the domain's last is under way.

    Rebuilds that would bring back what was taken out of service are set aside first.
    """
    with files.locked(home.lock):  # the gate and the runner move what has ended
        retraction.drop_stale(home, time.time())
        known = {directory.id for directory in jobs.completed(home)}
        busy = jobs.busy(home)
        waiting = batches.all_queued(home)
    chosen = []
    for batch in waiting:
        job = jobs.next_id(home, batch.id)
        if (batch.persona, batch.domain) not in busy and job not in known:
            busy.add((batch.persona, batch.domain))
            chosen.append(batch)
    return chosen

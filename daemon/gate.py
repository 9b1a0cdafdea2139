"""The gate loop: a candidate is judged on the worker, beside what serves, and only a better one is promoted.

The candidate is loaded on standby; both stacks answer the same questions; the verdict is written before anything acts
on it, and every act after it can be done twice. A refused batch is tried again as `gate.ladder` says, then set aside;
one without enough evidence waits for more signals.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

import anyio.to_thread

from daemon import exam, judging
from daemon.events import Alarm, Announcer
from daemon.judging import Contest
from daemon.worker_client import WorkerClient
from genome import adapters, batches, files, jobs, promotions, registry, retraction, scores
from genome.batches import Batch
from genome.config import Config
from genome.errors import GenomeError, InvalidAdapter, NotFound, Unavailable
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.promotions import Stack, StackEntry
from genome.quality import Verdict
from genome.scores import Scores
from genome.training import Job


@dataclass
class Gate:
    home: Home
    config: Config
    worker: WorkerClient
    announcer: Announcer
    planner: Alarm
    deployer: Alarm

    name = "gate"

    async def step(self) -> float | None:
        """Judges every candidate that waits and carries the verdicts out. One that cannot be judged delays no other."""
        failed: GenomeError | None = None
        for directory, job, candidate in await anyio.to_thread.run_sync(self._trained):
            try:
                await self._settle(directory, job, candidate)
            except GenomeError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return None

    async def _settle(self, directory: JobDirectory, job: Job, candidate: str) -> None:
        """One candidate, from whatever was done with it before."""
        if not directory.verdict_file.exists():
            verdict, seen = await self._judge(job, candidate)
            if job.part:
                verdict = verdict.model_copy(update={"promote": False, "reason": f"a probe: {verdict.reason}"})
            if await anyio.to_thread.run_sync(self._record, directory, job, verdict, seen):
                self.announcer.tell(
                    "judged", job=job.id, persona=job.persona, domain=job.domain, adapter=verdict.candidate,
                    promote=verdict.promote, reason=verdict.reason,
                )  # fmt: skip
        became, reason = await anyio.to_thread.run_sync(self._carry_out, directory, job)
        if not became:
            return  # what serves was changed meanwhile: it is judged again
        self.announcer.tell(
            became, persona=job.persona, domain=job.domain, batch=job.batch, job=job.id, adapter=candidate,
            reason=reason, share=self.config.canary.share or 1.0,
        )  # fmt: skip
        self.deployer.ring()
        self.planner.ring()
        if became != "promoted":
            with suppress(Unavailable):  # a worker that comes back has not loaded it
                await self._dismiss(candidate)

    def _trained(self) -> list[tuple[JobDirectory, Job, str]]:
        """Active jobs that have a candidate, and its id. While a persona is pinned or a canary runs, they wait."""
        with files.locked(self.home.lock):  # the runner moves failed ones away
            found = [(directory, directory.result()) for directory in jobs.active(self.home)]
            trained = [(directory, directory.job(), result.adapter) for directory, result in found
                       if result is not None and result.adapter is not None]  # fmt: skip
            return [each for each in trained if self._settled(each[1].persona) or each[0].verdict_file.exists()]

    def _settled(self, persona: str) -> bool:
        """Whether what serves may be changed, and is what a candidate would be held against tomorrow."""
        return not registry.pinned(self.home, persona) and registry.canary(self.home, persona) is None

    async def _judge(self, job: Job, candidate: str) -> tuple[Verdict, Scores]:
        batch = await anyio.to_thread.run_sync(batches.find, self.home, job.batch)
        try:
            made = await anyio.to_thread.run_sync(adapters.verify, self.home, candidate, job.base_fingerprint)
            contest = await anyio.to_thread.run_sync(self._contest, batch, candidate, made.digest)
            for entry in contest.stack:
                await self.worker.load(self.home.adapter(entry.adapter), entry.adapter, entry.digest)
            asked = await anyio.to_thread.run_sync(exam.write, self.home, self.config, job, batch, contest.incumbent)
            return await judging.judge(self.config, self.worker, job, asked, contest)
        except InvalidAdapter as error:
            return _unusable(job, candidate, registry.stack_of(self.home, job.persona), str(error))

    def _contest(self, batch: Batch, candidate: str, digest: str) -> Contest:
        past, incumbent = registry.history(self.home, batch.persona), registry.stack_of(self.home, batch.persona)
        served = {entry.adapter for promotion in past for entry in promotion.stack} - promotions.quarantined(past)
        stack = promotions.with_adapter(incumbent, StackEntry(adapter=candidate, digest=digest))
        known = tuple(scores.of_versions(self.home, sorted(served)))
        return Contest(candidate, incumbent, stack, known, batch.signals, must_learn=not batch.rebuilds)

    def _record(self, directory: JobDirectory, job: Job, verdict: Verdict, seen: Scores) -> bool:
        """Writes the verdict, which is what counts, last; not of a candidate nobody wants any more, and not where
        something else serves by now than what it was held against."""
        with files.locked(self.home.lock):
            if self._unwanted(directory, job) or not self._holds(job, verdict):
                return False
            if verdict.promote:
                seen.write(scores.path(self.home, verdict.candidate))
            verdict.write(directory.verdict_file)
        return True

    def _carry_out(self, directory: JobDirectory, job: Job) -> tuple[str, str]:
        """What became of the batch, as the event that is told, and why; nothing: it is to be judged again."""
        with files.locked(self.home.lock):
            verdict = Verdict.read(directory.verdict_file) if directory.verdict_file.exists() else None
            if verdict is None or verdict.promote:
                if why := self._unwanted(directory, job):
                    retraction.dismiss(self.home, directory, why, time.time())
                    return "withdrawn", why
                if verdict is None or not self._holds(job, verdict):
                    files.remove(directory.verdict_file)
                    return "", ""
            became = self._ended(job, verdict)
            jobs.complete(self.home, directory)
        return became, verdict.reason

    def _unwanted(self, directory: JobDirectory, job: Job) -> str:
        """Why a candidate must not serve, whatever it learned: a signal it was trained on was retracted since, or the
        version it goes on from, or was to take the place of, no longer serves."""
        stack = registry.stack_of(self.home, job.persona)
        if why := retraction.unwanted(self.home, directory, stack):
            return why
        serves = promotions.versions(stack).get((job.persona, job.domain))
        if serves == job.replaces or job.part or registry.promoted(self.home, job):
            return ""
        return (
            f"{job.replaces or 'the base alone'} served when it was ordered, and {serves or 'the base alone'} does now"
        )

    def _holds(self, job: Job, verdict: Verdict) -> bool:
        """Whether a verdict is about what serves now, and may change it."""
        if registry.promoted(self.home, job) or not verdict.promote:
            return True
        serves = tuple(entry.adapter for entry in registry.stack_of(self.home, job.persona))
        return self._settled(job.persona) and verdict.incumbent == serves

    def _ended(self, job: Job, verdict: Verdict) -> str:
        try:
            batch = batches.find(self.home, job.batch)
        except NotFound:  # released, and killed before the job was moved
            return "batch_waits"
        if job.part:
            return "probed"
        if verdict.promote:
            registry.promote(
                self.home, verdict.candidate, time.time(), verdict.reason, job.id, verdict.numbers(),
                share=self.config.canary.share or 1.0,
            )  # fmt: skip
            batches.archive(self.home, batch)
            return "promoted"
        if verdict.undecided and self.config.gate.undecided == "wait" and verdict.needed and not batch.rebuilds:
            batches.release(self.home, batch)
            return "batch_waits"
        if job.attempt <= len(self.config.gate.ladder):
            return "batch_tried_again"
        batches.set_aside(self.home, batch, verdict.reason)
        return "batch_set_aside"

    async def _dismiss(self, candidate: str) -> None:
        """Takes a refused candidate out of the worker's memory; its files stay for whoever wants to look."""
        if any(info.id == candidate for info in await self.worker.adapters()):
            await self.worker.unload(candidate)


def _unusable(job: Job, candidate: str, incumbent: Stack, why: str) -> tuple[Verdict, Scores]:
    """Of a candidate that cannot even be asked."""
    serves = tuple(entry.adapter for entry in incumbent)
    verdict = Verdict(
        job=job.id, candidate=candidate, incumbent=serves, promote=False, reason=f"it cannot be used: {why}",
        findings=(), created=int(time.time() * 1000),
    )  # fmt: skip
    return verdict, Scores(adapter=candidate, incumbent=serves, before={}, after={})

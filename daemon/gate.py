"""The gate loop: a candidate is judged on the worker, beside what serves, and only a better one is promoted.

The candidate is loaded on standby; both stacks answer the same questions; the verdict is written before anything acts
on it, and every act after it can be done twice.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import anyio.to_thread

from daemon import anchors
from daemon.events import Alarm, Announcer
from daemon.worker_client import Question, WorkerClient
from genome import adapters, batches, files, jobs, quality, registry
from genome.batches import Batch
from genome.config import Config
from genome.jobs import Job, JobDirectory
from genome.layout import Home
from genome.quality import OldSet, Paired, QuestionScore, Verdict
from genome.registry import Stack, StackEntry
from genome.signals import Signal


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
        """Judges every candidate that waits and carries the verdicts out."""
        for directory, job, candidate in await anyio.to_thread.run_sync(self._trained):
            if not directory.verdict_file.exists():
                verdict = await self._judge(job, candidate)
                await anyio.to_thread.run_sync(verdict.write, directory.verdict_file)
                self.announcer.tell(
                    "judged", job=job.id, persona=job.persona, domain=job.domain, adapter=verdict.candidate,
                    promote=verdict.promote, reason=verdict.reason,
                )  # fmt: skip
            verdict = Verdict.read(directory.verdict_file)
            await anyio.to_thread.run_sync(self._carry_out, directory, job, verdict)
            if not verdict.promote:
                await self._dismiss(verdict)
            self.deployer.ring()
            self.planner.ring()
        return None

    def _trained(self) -> list[tuple[JobDirectory, Job, str]]:
        """Active jobs that have a candidate, and its id."""
        with files.locked(self.home.lock):  # the runner moves failed ones away
            found = [(directory, directory.result()) for directory in jobs.active(self.home)]
            return [(directory, directory.job(), result.adapter) for directory, result in found
                    if result is not None and result.adapter is not None]  # fmt: skip

    async def _judge(self, job: Job, candidate: str) -> Verdict:
        made = await anyio.to_thread.run_sync(adapters.verify, self.home, candidate, job.base_fingerprint)
        incumbent = await anyio.to_thread.run_sync(registry.stack_of, self.home, job.persona)
        stack = registry.with_adapter(incumbent, StackEntry(adapter=candidate, digest=made.digest))
        for entry in stack:
            await self.worker.load(self.home.adapter(entry.adapter), entry.adapter, entry.digest)
        batch = await anyio.to_thread.run_sync(batches.find, self.home, job.batch)
        return await judge(self.home, self.config, self.worker, job, batch, (candidate, incumbent, stack))

    def _carry_out(self, directory: JobDirectory, job: Job, verdict: Verdict) -> None:
        with files.locked(self.home.lock):
            batch = batches.find(self.home, job.batch)
            if verdict.promote:
                registry.promote(self.home, verdict.candidate, time.time(), verdict.reason, job.id)
                batches.archive(self.home, batch)
            else:
                batches.set_aside(self.home, batch, verdict.reason)
            jobs.complete(self.home, directory)

    async def _dismiss(self, verdict: Verdict) -> None:
        """Takes a refused candidate out of the worker's memory; its files stay for whoever wants to look."""
        if any(info.id == verdict.candidate for info in await self.worker.adapters()):
            await self.worker.unload(verdict.candidate)


async def judge(
    home: Home,
    config: Config,
    worker: WorkerClient,
    job: Job,
    batch: Batch,
    compared: tuple[str, Stack, Stack],
) -> Verdict:
    """Scores both stacks on the same questions. ``compared``: the candidate's id, the incumbent's stack, its own."""
    candidate, incumbent, stack = compared
    settings = config.gate
    held_out = await anyio.to_thread.run_sync(batches.held_out_part, home, batch)
    asked = contrast_questions(held_out, settings.contrast_answers)
    findings = [quality.enough_evidence(len(asked), settings.min_held_out)]
    before = after = None
    if findings[0].passed:
        paired = Paired(await _scored(worker, asked, incumbent), await _scored(worker, asked, stack))
        findings.append(quality.learned(paired, settings.confidence))
        before = quality.measures([score.own for score in paired.incumbent])
        after = quality.measures([score.own for score in paired.candidate])
        for name, questions in await anyio.to_thread.run_sync(_old_sets, home, config, job, batch):
            old = OldSet(name, await _own(worker, questions, incumbent), await _own(worker, questions, stack))
            findings.append(quality.retained(old, settings.min_retention, settings.confidence))
    promote, reason = quality.summarise(findings)
    return Verdict(
        job=job.id,
        candidate=candidate,
        incumbent=tuple(entry.adapter for entry in incumbent),
        promote=promote,
        reason=reason,
        findings=tuple(findings),
        before=before,
        after=after,
        created=int(time.time() * 1000),
    )


def contrast_questions(held_out: list[Signal], others: int) -> list[Question]:
    """Each signal's own answer, then answers of ``others`` other questions that differ from it: chosen by hash."""
    asked = []
    for signal in held_out:
        own = signal.correct_output or ""
        different = {other.correct_output or "" for other in held_out} - {own}
        ranked = sorted(different, key=lambda answer: hashlib.sha256(f"{signal.id} {answer}".encode()).digest())
        asked.append(Question(answers=(own, *ranked[:others]), turns=tuple(signal.prompt())))
    return [question for question in asked if len(question.answers) > 1]


def _old_sets(home: Home, config: Config, job: Job, batch: Batch) -> list[tuple[str, list[Question]]]:
    """What was known before: the base's own answers, and the held-out questions of earlier batches."""
    _, judging = anchors.split(anchors.read(home, job.base_fingerprint))
    earlier = [
        signal
        for old in batches.archived(home, batch.persona, batch.domain)
        for signal in batches.held_out_part(home, old)
    ]
    asked_anew = {signal.question for signal in batches.signals(home, batch)}
    lost = batches.superseded(home, batch.persona, batch.domain) | set(batch.supersedes)
    known = [signal for signal in earlier if signal.question not in asked_anew and signal.id not in lost]
    recall = known[max(0, len(known) - config.gate.recall_examples) :]
    sets = [
        ("anchors", [Question(answers=(anchor.answer,), text=anchor.prompt) for anchor in judging]),
        (
            "recall",
            [Question(answers=(signal.correct_output or "",), turns=tuple(signal.prompt())) for signal in recall],
        ),
    ]
    return [(name, questions) for name, questions in sets if questions]


async def _scored(worker: WorkerClient, asked: list[Question], stack: Stack) -> tuple[QuestionScore, ...]:
    return tuple(QuestionScore(scores[0], scores[1:]) for scores in await worker.score(asked, stack))


async def _own(worker: WorkerClient, asked: list[Question], stack: Stack) -> tuple[quality.AnswerScore, ...]:
    return tuple(scores[0] for scores in await worker.score(asked, stack))

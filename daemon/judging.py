"""Asking both models on the worker, and what their answers say: an exam in, a verdict and its scores out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import anyio.to_thread

from daemon import grader, worker_client
from daemon.chat_endpoint import ChatEndpoint
from daemon.exam import Exam, OldQuestions
from daemon.worker_client import Question, WorkerClient
from genome import measures, quality, scores
from genome.config import Config
from genome.errors import InvalidAdapter, InvalidInput
from genome.promotions import Stack
from genome.quality import Finding, OldSet, Paired, Verdict
from genome.scores import AnswerScore, Observed, QuestionScore, Scores
from genome.training import Job
from genome.v1 import inference_pb2 as pb

AT_ONCE = 8
"""Answers generated at a time."""
ANSWER_TOKENS = 256
ANSWER_SECONDS = 600.0


@dataclass(frozen=True)
class Contest:
    """Who is held against whom. ``incumbent`` and ``stack`` are what would serve without and with the candidate."""

    candidate: str
    incumbent: Stack
    stack: Stack
    known: tuple[Scores, ...] = ()
    """Of the versions that served before."""
    examples: int = 0
    """Signals of the batch that teach."""
    must_learn: bool = True
    """False: it was trained again on what was known, and has only to keep that."""

    @property
    def stacks(self) -> tuple[Stack, Stack]:
        """The incumbent's, then the candidate's."""
        return self.incumbent, self.stack


Sides = tuple[dict[str, Observed], dict[str, Observed]]
"""What incumbent and candidate gave, by question."""


async def judge(config: Config, worker: WorkerClient, job: Job, exam: Exam, contest: Contest) -> tuple[Verdict, Scores]:
    """Scores both stacks on the same questions."""
    bar, pairs, findings = config.gate.bar(job.attempt), None, list[Finding]()
    if contest.must_learn:
        asked, sides = await _both(worker, exam.held_out, contest)
        findings.append(quality.enough_evidence(len(asked), config.gate.min_held_out))
        if findings[0].passed:
            pairs = Paired(*(tuple(QuestionScore(found[0], found[1:]) for found in side) for side in sides))
            findings += _new(asked, pairs, config, bar)
    seen: dict[str, Sides] = {}
    for old in exam.old:
        seen[old.name] = await observed(worker, old, contest, config)
        findings += _kept(old.name, seen[old.name], contest, bar)
    decided = quality.decide(findings, config.gate.undecided)
    verdict = Verdict(
        job=job.id,
        candidate=contest.candidate,
        incumbent=tuple(entry.adapter for entry in contest.incumbent),
        promote=decided.promote,
        undecided=decided.undecided,
        needed=decided.needed,
        examples=contest.examples,
        reason=decided.reason,
        findings=tuple(findings),
        before=quality.measures([each.own for each in pairs.incumbent]) if pairs else None,
        after=quality.measures([each.own for each in pairs.candidate]) if pairs else None,
        created=int(time.time() * 1000),
    )
    before, after = ({name: sides[side] for name, sides in seen.items()} for side in (0, 1))
    return verdict, Scores(adapter=verdict.candidate, incumbent=verdict.incumbent, before=before, after=after)


def _new(held_out: list[Question], pairs: Paired, config: Config, bar: quality.Bar) -> list[Finding]:
    """Whether it learned what it was to learn, and is good enough at it."""
    found = [quality.learned(pairs, bar)]
    if config.gate.min_quality:
        own = {asked.id: each.own.observed for asked, each in zip(held_out, pairs.candidate, strict=True)}
        found.append(quality.good_enough("the held-out questions", own, config.gate.min_quality))
    return found


def _kept(name: str, sides: Sides, contest: Contest, bar: quality.Bar) -> list[Finding]:
    """Against the incumbent, and against a version that was better at it than the incumbent is."""
    incumbent, candidate = sides
    found = [quality.retained(OldSet(name, incumbent, candidate), bar)]
    if (best := scores.best(contest.known, name, incumbent)) is not None:
        found.append(quality.retained(OldSet(name, best.observed, candidate, best.adapter), bar))
    return found


async def observed(worker: WorkerClient, old: OldQuestions, contest: Contest, config: Config) -> Sides:
    """What both stacks give on a set of old questions."""
    if old.measure in measures.SCORED:
        asked, sides = await _both(worker, old.questions, contest)
        likelihood = old.measure == "likelihood"
        incumbent, candidate = (
            {
                each.id: (math.exp(own.per_token), 1.0) if likelihood else own.observed
                for each, (own, *_) in zip(asked, side, strict=True)
            }
            for side in sides
        )
        return incumbent, candidate
    values = [await _valued(old, await _answers(worker, old.questions, stack), config) for stack in contest.stacks]
    incumbent, candidate = (
        {each.id: (value, 1.0) for each, value in zip(old.questions, side, strict=True)} for side in values
    )
    return incumbent, candidate


async def _both(
    worker: WorkerClient, questions: Sequence[Question], contest: Contest
) -> tuple[list[Question], list[list[tuple[AnswerScore, ...]]]]:
    """The questions that can be asked, and both stacks' scores of them. One longer than the context cannot."""
    found = [await _scored(worker, questions, stack) for stack in contest.stacks]
    kept = [index for index in range(len(questions)) if all(side[index] for side in found)]
    return [questions[index] for index in kept], [[side[index] or () for index in kept] for side in found]


async def _scored(
    worker: WorkerClient, questions: Sequence[Question], stack: Stack
) -> list[tuple[AnswerScore, ...] | None]:
    try:
        return [*await worker.score(questions, stack)]
    except InvalidAdapter:
        raise
    except InvalidInput:
        if len(questions) == 1:
            return [None]
    middle = len(questions) // 2
    return [*await _scored(worker, questions[:middle], stack), *await _scored(worker, questions[middle:], stack)]


async def _valued(old: OldQuestions, answers: list[str], config: Config) -> list[float]:
    """What each answer is worth by the set's measure, from 0 to 1."""
    pairs = list(zip(old.questions, answers, strict=True))
    if old.measure == measures.JUDGE:
        endpoint = ChatEndpoint.of(config.endpoint)
        return [await grader.grade(endpoint, asked.turns, asked.answers[0], answer) for asked, answer in pairs]

    def measured() -> list[float]:
        measure = measures.find(old.measure)
        return [measure(answer, asked.answers[0]) for asked, answer in pairs]

    return await anyio.to_thread.run_sync(measured)  # a scorer of one's own may be slow


async def _answers(worker: WorkerClient, asked: tuple[Question, ...], stack: Stack) -> list[str]:
    """The greedy answer to each question, in order."""
    sampling, served = pb.Sampling(max_tokens=ANSWER_TOKENS), worker_client.to_proto(stack)
    requests = [
        pb.GenerateRequest(
            messages=worker_client.messages(each.turns), stack=served, sampling=sampling,
            priority=pb.PRIORITY_BACKGROUND,
        )
        for each in asked
    ]  # fmt: skip
    return [reply.text for reply in await worker.replies(requests, AT_ONCE, ANSWER_SECONDS)]

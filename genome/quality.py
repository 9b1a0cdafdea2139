"""Judging a candidate: paired scores in, a verdict with its numbers and reasons out. Pure and seeded.

"It learned" is a contrast: how much likelier a question's own answer became than other questions' answers, candidate
against incumbent. Style alone lifts both and cancels out; answers shuffled among questions lower it.
"It still knows" is token accuracy on what was known before, candidate ÷ incumbent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from genome.records import Record

RESAMPLES = 2000
SEED = 20


@dataclass(frozen=True)
class AnswerScore:
    """How one model sees one given answer."""

    logprob: float
    """Natural logarithm, over all its tokens."""
    tokens: int
    greedy_tokens: int
    """How many of them greedy decoding would have chosen."""

    @property
    def per_token(self) -> float:
        return self.logprob / max(1, self.tokens)


@dataclass(frozen=True)
class QuestionScore:
    """One held-out question under one model."""

    own: AnswerScore
    others: tuple[AnswerScore, ...]
    """Of answers that belong to other questions, the same ones for both models."""

    @property
    def contrast(self) -> float:
        """Nats a token: log p(own answer) − mean log p(other answers)."""
        return self.own.per_token - float(np.mean([other.per_token for other in self.others]))


class Finding(BaseModel):
    """One thing the verdict rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """learned, retention/<set>, or evidence."""
    passed: bool
    value: float
    low: float
    """One-sided lower bound at the stated confidence."""
    required: float
    questions: int
    explanation: str


class Measures(BaseModel):
    """One model on the held-out questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: float
    """Nats a response token."""
    token_accuracy: float


class Verdict(Record):
    """verdict.json: whether a candidate may serve, and the numbers that decided."""

    job: str
    candidate: str
    incumbent: tuple[str, ...]
    """Adapter ids of the stack it was held against; none: the base alone."""
    promote: bool
    reason: str
    findings: tuple[Finding, ...]
    before: Measures | None = None
    after: Measures | None = None
    kind: Literal["paired"] = "paired"
    created: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Paired:
    """The same questions under both models, in the same order."""

    incumbent: tuple[QuestionScore, ...]
    candidate: tuple[QuestionScore, ...]


@dataclass(frozen=True)
class OldSet:
    """Answers that were known before, under both models, in the same order."""

    name: str
    incumbent: tuple[AnswerScore, ...]
    candidate: tuple[AnswerScore, ...]


def learned(scores: Paired, confidence: float) -> Finding:
    """Whether the contrast rose: its lower bound over the questions is above zero."""
    gains = np.array([after.contrast - before.contrast for before, after in _pairs(scores)])
    value, low = float(gains.mean()), _lower_bound(gains, np.ones_like(gains), confidence)
    said = "rose" if low > 0 else "did not surely rise"
    return Finding(
        name="learned",
        passed=low > 0,
        value=value,
        low=low,
        required=0.0,
        questions=len(gains),
        explanation=f"own answers over others' {said}: {value:+.3f} nats a token (at least {low:+.3f})",
    )


def retained(old: OldSet, required: float, confidence: float) -> Finding:
    """Whether token accuracy on an old set is at least ``required`` of the incumbent's."""
    before = np.array([score.greedy_tokens for score in old.incumbent], dtype=float)
    after = np.array([score.greedy_tokens for score in old.candidate], dtype=float)
    value = float(after.sum() / before.sum()) if before.sum() else 1.0
    low = _lower_bound(after, before, confidence) if before.sum() else 1.0
    return Finding(
        name=f"retention/{old.name}",
        passed=value >= required,
        value=value,
        low=low,
        required=required,
        questions=len(before),
        explanation=f"{old.name}: {value:.3f} of the token accuracy kept (at least {low:.3f}), {required:g} required",
    )


def enough_evidence(questions: int, required: int) -> Finding:
    said = "enough" if questions >= required else "not enough evidence"
    return Finding(
        name="evidence",
        passed=questions >= required,
        value=questions,
        low=questions,
        required=required,
        questions=questions,
        explanation=f"{said}: {questions} held-out questions, {required} required",
    )


def measures(scores: Sequence[AnswerScore]) -> Measures:
    tokens = max(1, sum(score.tokens for score in scores))
    return Measures(
        loss=-sum(score.logprob for score in scores) / tokens,
        token_accuracy=sum(score.greedy_tokens for score in scores) / tokens,
    )


def summarise(findings: Sequence[Finding]) -> tuple[bool, str]:
    """Whether all passed, and the sentence that says which decided."""
    failed = [finding.explanation for finding in findings if not finding.passed]
    if failed:
        return False, "; ".join(failed)
    return True, "; ".join(finding.explanation for finding in findings)


def _pairs(scores: Paired) -> zip[tuple[QuestionScore, QuestionScore]]:
    return zip(scores.incumbent, scores.candidate, strict=True)


def _lower_bound(numerator: npt.NDArray[np.float64], denominator: npt.NDArray[np.float64], confidence: float) -> float:
    """One-sided bound of Σ numerator ÷ Σ denominator by paired bootstrap over the questions (percentile method)."""
    generator = np.random.default_rng(SEED)
    picks = generator.integers(0, len(numerator), size=(RESAMPLES, len(numerator)))
    ratios = numerator[picks].sum(axis=1) / np.maximum(denominator[picks].sum(axis=1), 1e-12)
    return float(np.quantile(ratios, 1 - confidence))

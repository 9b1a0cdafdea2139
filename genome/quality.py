"""Judging a candidate: paired scores in, a verdict with its numbers and reasons out. Pure and seeded.

"It learned" is a contrast: how much likelier a question's own answer became than other questions' answers, candidate
against incumbent. Style alone lifts both and cancels out; answers shuffled among questions lower it.
"It still knows" is non-inferiority on what was known before: the lower bound of candidate ÷ incumbent, and of candidate
÷ the best version so far, since 0.95 of each predecessor is 0.60 of the first after ten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from genome import evidence, scores
from genome.records import Record
from genome.scores import AnswerScore, Observed, QuestionScore

TYPICAL_SPREAD = 1.4
"""Nats a token: standard deviation over questions of what the contrast gained, on real corrections."""


class Finding(BaseModel):
    """One thing the verdict rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """evidence, learned, retention/<set>, retention/<set>/best, or quality."""
    passed: bool
    undecided: bool = False
    """Neither shown nor refuted: too few questions for what they say."""
    value: float
    low: float
    """One-sided lower bound at the stated confidence."""
    high: float
    """One-sided upper bound."""
    required: float
    questions: int
    against: str = ""
    """The version it is held against, where that is not the incumbent."""
    spread: float = 0.0
    """Standard deviation over the questions, of learned."""
    needed: int = 0
    """Questions that would tell, where it is undecided and more new signals would bring them."""
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
    undecided: bool = False
    """Not promoted for want of evidence alone."""
    needed: int = 0
    """Held-out questions that would have told, where there were too few."""
    examples: int = 0
    """Signals of the batch that teach."""
    reason: str
    findings: tuple[Finding, ...]
    before: Measures | None = None
    after: Measures | None = None
    kind: Literal["paired"] = "paired"
    created: int
    """Milliseconds since 1970."""

    def numbers(self) -> dict[str, float]:
        """By name of the finding."""
        return {finding.name: round(finding.value, 4) for finding in self.findings}


@dataclass(frozen=True)
class Bar:
    """What a candidate must show."""

    confidence: float
    """Of the bounds on what is kept, one-sided."""
    retention: float
    """Candidate ÷ incumbent, and ÷ the best so far."""
    gain: float
    """Nats a token that are worth detecting."""
    power: float
    """Probability that such a gain is detected."""
    learned: float
    """Confidence of the bound on what was learned."""

    def questions(self, spread: float = TYPICAL_SPREAD) -> int:
        """Held-out questions that are enough to tell whether it learned."""
        return evidence.questions_needed(spread, self.gain, self.learned, self.power)


@dataclass(frozen=True)
class Paired:
    """The same questions under both models, in the same order."""

    incumbent: tuple[QuestionScore, ...]
    candidate: tuple[QuestionScore, ...]


@dataclass(frozen=True)
class OldSet:
    """Questions whose answers were known before, under both models: what each gave, by question."""

    name: str
    incumbent: Mapping[str, Observed]
    candidate: Mapping[str, Observed]
    against: str = ""
    """The version in ``incumbent``, where that is not the one that serves."""


def learned(pairs: Paired, bar: Bar) -> Finding:
    """Whether the contrast rose: its lower bound over the questions is above zero.

    Undecided while the bound includes both nothing and a gain worth having, and there are fewer questions than would
    tell the two apart at the spread they show.
    """
    gains = np.array([after.contrast - before.contrast for before, after in
                      zip(pairs.incumbent, pairs.candidate, strict=True)])  # fmt: skip
    bounds, spread = evidence.mean(gains, bar.learned), float(gains.std(ddof=1))
    needed = bar.questions(spread) if spread else 0
    passed = bounds.low > 0
    undecided = not passed and bounds.high >= bar.gain and len(gains) < needed
    said = "rose" if passed else "may have risen" if undecided else "did not surely rise"
    explanation = f"own answers over others' {said}: {bounds.value:+.3f} nats a token (at least {bounds.low:+.3f})"
    if undecided:
        explanation += f"; not enough evidence: {len(gains)} questions, about {needed} would tell"
    return Finding(
        name="learned", passed=passed, undecided=undecided, value=bounds.value, low=bounds.low, high=bounds.high,
        required=0.0, questions=len(gains), spread=spread, needed=needed if undecided else 0, explanation=explanation,
    )  # fmt: skip


def retained(old: OldSet, bar: Bar) -> Finding:
    """Whether the candidate surely keeps what the incumbent knew: the lower bound of candidate ÷ incumbent is at least
    ``bar.retention``. Undecided where only the estimate is."""
    asked = [key for key in old.incumbent if key in old.candidate]
    before = np.array([old.incumbent[key][0] for key in asked])
    after = np.array([old.candidate[key][0] for key in asked])
    bounds = evidence.Bounds(1.0, 1.0, 1.0) if not before.any() else evidence.ratio(after, before, bar.confidence)
    passed = bounds.low >= bar.retention
    undecided = not passed and bounds.value >= bar.retention
    versus = f" of {old.against}'s, the best so far," if old.against else ""
    said = f"{old.name}: {bounds.value:.3f}{versus} kept (at least {bounds.low:.3f}), {bar.retention:g} required"
    if undecided:
        said += f"; not enough evidence in {len(asked)} questions"
    return Finding(
        name=f"retention/{old.name}" + ("/best" if old.against else ""), passed=passed, undecided=undecided,
        value=bounds.value, low=bounds.low, high=bounds.high, required=bar.retention, questions=len(asked),
        against=old.against, explanation=said,
    )  # fmt: skip


def good_enough(name: str, observed: Mapping[str, Observed], required: float) -> Finding:
    """Whether the candidate itself reaches an absolute floor."""
    value = scores.share(observed.values())
    return Finding(
        name="quality", passed=value >= required, value=value, low=value, high=value, required=required,
        questions=len(observed), explanation=f"{value:.3f} right on {name}, {required:g} required",
    )  # fmt: skip


def enough_evidence(questions: int, required: int) -> Finding:
    said = "enough" if questions >= required else "not enough evidence"
    return Finding(
        name="evidence", passed=questions >= required, undecided=questions < required, value=questions, low=questions,
        high=questions, required=required, questions=questions, needed=required if questions < required else 0,
        explanation=f"{said}: {questions} held-out questions, {required} required",
    )  # fmt: skip


def measures(found: Sequence[AnswerScore]) -> Measures:
    tokens = max(1, sum(score.tokens for score in found))
    return Measures(
        loss=-sum(score.logprob for score in found) / tokens,
        token_accuracy=sum(score.greedy_tokens for score in found) / tokens,
    )


@dataclass(frozen=True)
class Decision:
    promote: bool
    undecided: bool
    needed: int
    """Held-out questions that would tell what is undecided of the new ones."""
    reason: str
    """The sentence that says which findings decided."""


def decide(findings: Sequence[Finding], when_undecided: Literal["wait", "promote", "refuse"] = "wait") -> Decision:
    """Promoted when all passed. One that surely failed refuses; else what is undecided goes as the policy says."""
    failed = [finding for finding in findings if not finding.passed]
    undecided = bool(failed) and all(finding.undecided for finding in failed)
    reason = "; ".join(finding.explanation for finding in failed or findings)
    needed = max((finding.needed for finding in failed), default=0)
    if undecided and when_undecided == "promote":
        return Decision(True, True, needed, f"promoted for want of evidence against it: {reason}")
    return Decision(not failed, undecided, needed, reason)

"""Promise 6: only better adapters go live. The verdict's arithmetic."""

from __future__ import annotations

import numpy as np

from genome import quality
from genome.quality import Bar, OldSet, Paired
from genome.scores import AnswerScore, QuestionScore

BAR = Bar(confidence=0.95, retention=0.95, gain=0.25, power=0.8, learned=0.95)


def answer(per_token: float, tokens: int = 10, greedy: int = 5) -> AnswerScore:
    return AnswerScore(per_token * tokens, tokens, greedy)


def paired(own_gain: float, others_gain: float, questions: int = 100, noise: float = 0.5) -> Paired:
    """Both stacks' scores where the candidate lifts own and other answers by so many nats a token, give or take."""
    generator = np.random.default_rng(1)
    before, after = [], []
    for _ in range(questions):
        before.append(QuestionScore(answer(-3), (answer(-3),) * 4))
        jitter = float(generator.normal(0, noise))
        after.append(QuestionScore(answer(-3 + own_gain + jitter), (answer(-3 + others_gain),) * 4))
    return Paired(tuple(before), tuple(after))


def old_set(before: list[int], after: list[int]) -> OldSet:
    """Greedy tokens of ten, question by question."""
    sides = ({str(key): (float(value), 10.0) for key, value in enumerate(side)} for side in (before, after))
    return OldSet("anchors", *sides)


def test_learning_the_answers_passes() -> None:
    """Own answers became likelier, others' did not."""
    assert quality.learned(paired(1.0, 0.0), BAR).passed


def test_learning_only_the_style_does_not() -> None:
    """Own and other answers became likelier alike: the loss fell, nothing was learned."""
    finding = quality.learned(paired(1.5, 1.5), BAR)
    assert not finding.passed and abs(finding.value) < 0.2


def test_unlearning_does_not() -> None:
    """Shuffled answers make a question's own answer less likely than others'."""
    assert quality.learned(paired(0.5, 1.0), BAR).value < 0


def test_few_noisy_questions_are_no_proof() -> None:
    """The same mean gain passes with many questions and not with few."""
    assert quality.learned(paired(0.2, 0.0, questions=400, noise=1.0), BAR).passed
    assert not quality.learned(paired(0.2, 0.0, questions=6, noise=1.0), BAR).passed


def test_forgetting_is_refused() -> None:
    """Less than the required part of the old token accuracy fails, and the sentence says how much was kept."""
    finding = quality.retained(old_set([10] * 50, [9] * 50), BAR)
    assert not finding.passed and finding.value == 0.9
    decided = quality.decide([quality.enough_evidence(50, 8), finding])
    assert not decided.promote and not decided.undecided and "0.900" in decided.reason


def test_a_verdict_is_the_same_at_every_look() -> None:
    """The bootstrap is seeded."""
    assert quality.learned(paired(0.2, 0.1), BAR) == quality.learned(paired(0.2, 0.1), BAR)


def test_too_few_questions_are_not_enough_evidence() -> None:
    """And it is said in these words."""
    assert "not enough evidence" in quality.enough_evidence(3, 8).explanation


def test_what_was_hardly_known_and_is_unchanged_is_kept() -> None:
    """Two of forty known before and after: samples in which none of the two is drawn lost nothing."""
    few = [5, 5] + [0] * 38
    finding = quality.retained(old_set(few, few), BAR)
    assert finding.passed and finding.low == finding.high == 1.0
    assert not quality.retained(old_set(few, [5, 0] + [0] * 38), BAR).passed

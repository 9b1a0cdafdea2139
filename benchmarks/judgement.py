"""How often the judgement is wrong, over simulated deployments: `python -m benchmarks.judgement --json`.

Whoever is judged is drawn at random with a known truth, and judged by the code that judges in earnest: the gate's
findings and decision, and the sequential test on feedback. Questions differ as they do in real runs: gains have heavy
tails, and what is forgotten sits in few of them. Beside each rate stands what the config promises.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import Report, arguments
from genome import quality, scores, sequential
from genome.config import Config
from genome.quality import Finding, OldSet, Paired
from genome.scores import AnswerScore, Observed, QuestionScore, Scores

SEED = 2026
DEPLOYMENTS = 1000
CONFIG = Config(base="none")
SPREAD, TAIL = quality.TYPICAL_SPREAD, 5
"""Of the contrast's gain over questions, and the degrees of freedom of its tails (Student's t)."""
OLD_QUESTIONS = {"anchors": CONFIG.gate.anchors // 2, "recall": CONFIG.gate.recall_examples}
VERSIONS = 10
"""In a row, each a little worse than the one before."""
BEFORE, AFTER = 2000, 2000
"""Samples of feedback on a version's predecessor, and on itself."""
SATISFIED = 0.8
"""Share of positive feedback before."""
DROPS = (0.05, 0.10, 0.20)


@dataclass(frozen=True)
class Truth:
    """What a candidate really is: nats gained by the contrast, and what is kept of each old set."""

    gain: float
    kept: float


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--deployments", type=int, default=DEPLOYMENTS, help="simulated of each kind")
    given = parser.parse_args()
    report, chance = Report(f"judgement, {given.deployments} deployments of each kind"), np.random.default_rng(SEED)
    at_the_gate(report, chance, given.deployments)
    after_deployment(report, chance, given.deployments)
    report.show(given.json)


def at_the_gate(report: Report, chance: np.random.Generator, count: int) -> None:
    gate = CONFIG.gate
    bad = {"learned_nothing": Truth(0.0, 1.0), "forgot": Truth(2 * gate.expected_gain, gate.min_retention)}
    tries = {"learned_nothing": len(gate.ladder) + 1, "forgot": 1}  # the tries share the first's rate
    for name, truth in bad.items():
        wrong = sum(any(promoted(chance, truth, number + 1) for number in range(tries[name])) for _ in range(count))
        report.rate("false_promotions", name, wrong / count, 1 - gate.confidence)
    good = Truth(gate.expected_gain, 0.985)
    judged = [findings_of(chance, good) for _ in range(count)]
    missed = sum(not findings[0].passed for findings in judged)
    report.rate("false_refusals", "learning_not_seen", missed / count, 1 - gate.power)
    report.rate("false_refusals", "in_all", sum(not _passes(each) for each in judged) / count, 1 - gate.power)
    held, lost = ratchet(chance, max(1, count // 20))
    report.keys["kept_of_the_best_after_ten"] = {"held_against_the_best": held, "against_the_last_alone": lost}
    name, asked = "kept of the best after ten versions; without that rule", f"≥ {gate.min_retention:g}"
    report.rows.append((name, f"{held:.3f}", f"{lost:.3f}", "", asked))


def after_deployment(report: Report, chance: np.random.Generator, count: int) -> None:
    rate = CONFIG.feedback.false_alarm_rate
    report.rate("false_rollbacks", "", sum(detected(chance, 0.0) is not None for _ in range(count)) / count, rate)
    for drop in DROPS:
        found = [detected(chance, drop) for _ in range(count)]
        name, missed = f"{drop * 100:.0f}_points", found.count(None) / count
        median = statistics.median(AFTER if each is None else each for each in found)
        report.keys.setdefault("missed_regressions", {})[name] = missed
        report.keys.setdefault("samples_to_detect", {})[name] = median
        said = f"samples to detect a drop of {drop * 100:.0f} points; missed in {AFTER}"
        report.rows.append((said, f"{median:g}", f"{missed:.3f}", "", ""))


def promoted(chance: np.random.Generator, truth: Truth, attempt: int = 1) -> bool:
    """Whether the gate promotes a candidate."""
    return _passes(findings_of(chance, truth, attempt))


def _passes(findings: list[Finding]) -> bool:
    return quality.decide(findings, CONFIG.gate.undecided).promote


def findings_of(chance: np.random.Generator, truth: Truth, attempt: int = 1) -> list[Finding]:
    """What the gate finds of a candidate; whether it learned comes first."""
    bar, questions = CONFIG.gate.bar(attempt), CONFIG.gate.bar().questions(SPREAD)
    findings = [quality.learned(contrasts(chance, truth.gain, questions), bar)]
    # One set has lost what it may lose; the other is as good as before.
    kept = dict(zip(OLD_QUESTIONS, (truth.kept, max(truth.kept, 0.985)), strict=True))
    for name, questions in OLD_QUESTIONS.items():
        before = answers(chance, questions)
        findings.append(quality.retained(OldSet(name, before, worn(chance, before, kept[name])), bar))
    return findings


def contrasts(chance: np.random.Generator, gain: float, questions: int) -> Paired:
    """Scores whose contrast rises by ``gain`` in the mean, with the spread and the tails real runs show."""
    gains = gain + chance.standard_t(TAIL, questions) * SPREAD / np.sqrt(TAIL / (TAIL - 2))
    flat = AnswerScore(-3.0, 1, 0)
    before = tuple(QuestionScore(flat, (flat,)) for _ in gains)
    return Paired(before, tuple(QuestionScore(AnswerScore(-3.0 + each, 1, 0), (flat,)) for each in gains))


def answers(chance: np.random.Generator, questions: int) -> dict[str, Observed]:
    """Right tokens of all tokens, by question."""
    tokens = 4 + chance.poisson(12, questions)
    right = chance.binomial(tokens, chance.beta(2, 1.5, questions))
    return {str(number): (float(each), float(of)) for number, (each, of) in enumerate(zip(right, tokens, strict=True))}


def worn(chance: np.random.Generator, before: dict[str, Observed], kept: float) -> dict[str, Observed]:
    """The same questions under a candidate that keeps ``kept`` of the right tokens in the mean: a few of the wrong ones
    come right, and what is lost is lost in whole answers more than evenly."""
    right, tokens = (np.array(side, dtype=int) for side in zip(*before.values(), strict=True))
    gained = 0.02
    lost = 1 - kept + gained * (tokens - right).sum() / max(1, right.sum())
    shares = chance.beta(0.4, 0.4 * (1 - lost) / lost, len(right))
    after = right - chance.binomial(right, shares) + chance.binomial(tokens - right, gained)
    return {key: (float(each), float(of)) for key, each, of in zip(before, after, tokens, strict=True)}


def ratchet(chance: np.random.Generator, chains: int) -> tuple[float, float]:
    """What the serving version keeps of the best there was after ten candidates that each keep 0.97 of the incumbent:
    the mean over chains, held against the best as well, and against the incumbent alone."""
    return tuple(
        round(float(np.mean([_last(chance, with_best) for _ in range(chains)])), 4) for with_best in (True, False)
    )  # type: ignore[return-value]


def _last(chance: np.random.Generator, with_best: bool) -> float:
    bar, first = CONFIG.gate.bar(), answers(chance, OLD_QUESTIONS["anchors"])
    serving, known = first, list[Scores]()
    for number in range(VERSIONS):
        candidate = worn(chance, serving, 0.97)
        findings = [quality.retained(OldSet("anchors", serving, candidate), bar)]
        if with_best and (best := scores.best(known, "anchors", serving)) is not None:
            findings.append(quality.retained(OldSet("anchors", best.observed, candidate, best.adapter), bar))
        if quality.decide(findings).promote:
            known.append(Scores(adapter=f"p/d-v1.{number}", incumbent=(), before={"anchors": serving},
                                after={"anchors": candidate}))  # fmt: skip
            serving = candidate
    return scores.share(serving.values()) / scores.share(first.values())


def detected(chance: np.random.Generator, drop: float) -> int | None:
    """Samples of the new version until feedback says that it is worse than its predecessor; None: it never did."""
    old = (chance.random(BEFORE) < SATISFIED).astype(float)
    new = (chance.random(AFTER) < SATISFIED - drop).astype(float)
    differences = sequential.in_order(old.tolist(), new.tolist(), sequential.together(BEFORE))
    wealth = sequential.log_wealth(differences)
    least = CONFIG.feedback.min_samples
    over = np.flatnonzero(wealth >= -np.log(CONFIG.feedback.false_alarm_rate))
    return max(least, int(over[0]) + 1) if over.size else None


if __name__ == "__main__":
    main()

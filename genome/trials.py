"""What serves, held against what served before: pure functions of promotion records, samples and ``now``.

A version's trial begins with the first record that names it and ends ``feedback.days`` later. Its predecessor's samples
are those that came so long before, or, while the version is a canary, those that come at the same time. One that goes
from there to all is tried a second time from then on, and each of the two trials may use half of the error rate. What
counts is when a sample arrived, so that none that comes late changes the pairs there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from genome import promotions, sequential
from genome.config import Canary, Config, Feedback
from genome.errors import InvalidInput
from genome.feedback import DAY, Sample
from genome.promotions import Promotion
from genome.sequential import Outcome, Values


@dataclass(frozen=True)
class Trial:
    """One version that serves."""

    adapter: str
    domain: str
    predecessor: str | None
    """None: the domain had no adapter before."""
    began: float
    """Seconds since 1970."""
    canary: bool
    """Whether only a share of the sessions gets it, so that both versions answer at the same time."""
    trials: int = 1
    """Of this version, among which `feedback.false_alarm_rate` is split: 2 where it began as a canary."""

    def rate(self, settings: Feedback) -> float:
        """Largest probability that this trial takes a version for worse that is not."""
        return settings.false_alarm_rate / self.trials


@dataclass(frozen=True)
class Judgement:
    """What follows for one version."""

    trial: Trial
    act: Literal["wait", "withdraw", "graduate", "roll_back"]
    reason: str
    """What was seen, with the numbers."""
    numbers: dict[str, float] = field(default_factory=dict)
    look_again: float | None = None
    """Seconds since 1970 at which time alone decides; None: only new samples can."""


def of(history: Sequence[Promotion]) -> list[Trial]:
    """Of every version of the persona that some session gets now. ``history``: oldest first, not empty."""
    newest, everybody = history[-1], promotions.settled(history)
    serving = sorted(newest.adapters | (everybody.adapters if everybody else frozenset()))
    found = []
    for adapter in serving:
        persona, domain = promotions.line(adapter)
        if persona != newest.persona:
            continue
        first = promotions.introduced(history, adapter)
        before = promotions.predecessor(promotions.chain_of(history, adapter), adapter)
        canary = newest.is_canary and not (everybody and adapter in everybody.adapters)
        if newest.is_canary and not canary and adapter not in newest.adapters:
            continue  # it is what a canary would replace: judged already, or again once the canary ended
        began = (promotions.spread(history, adapter) or first).created / 1000
        trials = 2 if first.is_canary else 1
        found.append(Trial(adapter, domain, before.adapter if before else None, began, canary, trials))
    return found


def judge(trial: Trial, samples: Sequence[Sample], config: Config, now: float) -> Judgement:
    """``samples``: of `feedback.metric` in the trial's domain, in the order of arrival."""
    settings, canary = config.feedback, config.canary
    deadline = trial.began + canary.max_hours * 3600 if trial.canary else None
    if now > trial.began + settings.days * DAY:  # from now on samples are forgotten, and other pairs are another test
        said = f"{trial.adapter} was compared with its predecessor for {settings.days:g} days"
        return _in_time(Judgement(trial, "wait", said, look_again=deadline), canary, now)
    try:
        found = _compared(trial, samples, settings)
    except InvalidInput as error:
        return _in_time(Judgement(trial, "wait", str(error), look_again=deadline), canary, now)
    said, numbers = _said(trial, found, settings), _numbers(trial, found, settings)
    judgement = Judgement(trial, "wait", said, numbers, deadline)
    if len(found.new) < (canary.min_samples if trial.canary else settings.min_samples):
        return _in_time(judgement, canary, now)
    if found.outcome.shown:
        return Judgement(trial, "withdraw", f"worse than its predecessor: {said}", numbers)
    if trial.canary and sequential.not_worse(found.differences, canary.margin, settings.false_alarm_rate).shown:
        return Judgement(trial, "graduate", f"not worse by {canary.margin:g}: {said}", numbers)
    return _in_time(judgement, canary, now)


@dataclass(frozen=True)
class _Compared:
    """Samples of both versions, and their differences."""

    new: tuple[float, ...]
    old: tuple[float, ...]
    differences: Values
    outcome: Outcome
    """Whether the new one is worse."""
    left_out: int
    """Samples with a value that cannot be compared."""


def _compared(trial: Trial, samples: Sequence[Sample], settings: Feedback) -> _Compared:
    """Raises InvalidInput if the metric is none that versions can be compared by."""
    span = settings.days * DAY
    begin = trial.began - (0 if trial.canary else span)
    begins = {trial.predecessor: begin, trial.adapter: trial.began}
    told = [
        sample
        for sample in samples
        if sample.adapter in begins and begins[sample.adapter] <= sample.received <= trial.began + span
    ]
    for version in begins:
        sequential.check([sample.value for sample in told if sample.adapter == version], settings.metric)
    of_both = [sample for sample in told if sequential.fits(sample.value)]
    new = tuple(sample.value for sample in of_both if sample.adapter == trial.adapter)
    old = tuple(sample.value for sample in of_both if sample.adapter != trial.adapter)
    if trial.canary:
        differences = sequential.side_by_side([(sample.adapter == trial.adapter, sample.value) for sample in of_both])
    else:
        before = sum(1 for each in of_both if each.adapter != trial.adapter and each.received < trial.began)
        differences = sequential.in_order(old, new, sequential.together(before))
    outcome = sequential.worse(differences, trial.rate(settings))
    return _Compared(new, old, differences, outcome, len(told) - len(of_both))


def _in_time(judgement: Judgement, settings: Canary, now: float) -> Judgement:
    """A canary that nothing was shown of ends after `canary.max_hours`."""
    if judgement.look_again is None or now < judgement.look_again:
        return judgement
    reason = f"nothing was shown of it in {settings.max_hours:g} hours: {judgement.reason}"
    return Judgement(judgement.trial, settings.at_last, reason, judgement.numbers)


def _said(trial: Trial, found: _Compared, settings: Feedback) -> str:
    if trial.predecessor is None:
        return f"{trial.adapter} is its domain's first version, so there is nothing to compare it with"
    needed = 1 / trial.rate(settings)
    sides = [
        f"{version} {f'{sum(values) / len(values):.3f}' if values else 'unknown'} ({len(values)} samples)"
        for version, values in ((trial.adapter, found.new), (trial.predecessor, found.old))
    ]
    said = f"{settings.metric} of {' against '.join(sides)}, e-value {found.outcome.e_value:.3g} of {needed:g}"
    if not trial.canary and len(found.new) > found.outcome.pairs:
        said += "; no sample of the predecessor is left to compare with"
    if found.left_out:
        said += f"; values outside 0 to 1 were left out: {found.left_out}"
    return said


def _numbers(trial: Trial, found: _Compared, settings: Feedback) -> dict[str, float]:
    """For the record."""
    means = {name: sum(values) / len(values) for name, values in (("new", found.new), ("old", found.old)) if values}
    return {
        **means,
        "new_samples": len(found.new),
        "old_samples": len(found.old),
        "pairs": found.outcome.pairs,
        "e_value": found.outcome.e_value,
        "e_value_needed": 1 / trial.rate(settings),
    } | ({"left_out": found.left_out} if found.left_out else {})

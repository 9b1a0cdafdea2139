"""The monitor loop: what serves is held against what served before, by the feedback that came since.

Worse: the version is withdrawn, and its predecessor serves again. A canary goes to all, or back. The records say what
was decided; the batch that made a withdrawn version follows them out of the archive.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

import anyio.to_thread

from daemon.events import Alarm, Announcer
from genome import adapters, batches, files, promotions, registry, trials
from genome.config import Config
from genome.errors import Conflict, Damaged, NotFound
from genome.feedback import Feedback
from genome.layout import Home
from genome.promotions import Promotion
from genome.trials import Judgement

REST_SECONDS = 1.0
"""Signals may arrive by the thousand a second; nobody needs a version withdrawn sooner than this."""

Told = list[tuple[str, dict[str, object]]]
"""Events: their names and facts."""


@dataclass
class Monitor:
    home: Home
    config: Config
    announcer: Announcer
    deployer: Alarm
    standing: dict[str, str] = field(default_factory=dict)
    """By adapter id: what feedback says of it so far, for `genome status`."""
    suspected: set[str] = field(default_factory=set)
    """Adapter ids found worse that were left to serve, and told."""
    feedback: Feedback = field(init=False)

    name = "monitor"

    def __post_init__(self) -> None:
        self.feedback = Feedback(self.home, span_days(self.config))

    async def step(self) -> float | None:
        """Judges every version that serves. Returns when time alone would end a canary."""
        told, look_again = await anyio.to_thread.run_sync(self._judge_all)
        for name, facts in told:
            self.announcer.tell(name, **facts)
        if told:
            self.deployer.ring()
        return look_again

    def _judge_all(self) -> tuple[Told, float | None]:
        told: Told = []
        looks, standing = [], {}
        for promotion in registry.newest(self.home):
            try:
                newest, judged = promotion, self._judge(promotion)
                while any(self._carry_out(newest, each, told) for each in judged):
                    newest = registry.current(self.home, promotion.persona) or promotion
                    judged = self._judge(newest)
                self._set_aside(promotion.persona)
            except Damaged as error:  # the other personas go on
                standing[promotion.persona] = str(error)
                continue
            standing.update({each.trial.adapter: each.reason for each in judged})
            looks += [each.look_again for each in judged if each.look_again is not None and not promotion.pinned]
        self.standing = standing
        return told, min(looks, default=None)

    def _judge(self, promotion: Promotion) -> list[Judgement]:
        return judge(self.home, self.config, self.feedback, promotion.persona)

    def _carry_out(self, judged: Promotion, judgement: Judgement, told: Told) -> bool:
        """Whether anything was changed. ``judged``: the record that was the newest when it was judged."""
        trial, persona = judgement.trial, judged.persona
        facts = {"persona": persona, "domain": trial.domain, "adapter": trial.adapter, "reason": judgement.reason}
        if judgement.act == "wait":
            return False
        held = judged.pinned or not (trial.canary or self.config.feedback.automatic_rollback)
        if held:
            return self._suspect(judgement, facts, told)
        with files.locked(self.home.lock):
            if registry.current(self.home, persona) != judged:
                return False  # somebody was faster: it is judged again
            try:
                made = self._record(persona, judgement)
            except Conflict as error:
                return self._suspect(judgement, facts | {"kept_because": str(error)}, told)
        if judgement.act == "graduate":
            told.append(("graduated", facts))
        else:
            told.append(("rolled_back", facts | {"to": [entry.adapter for entry in made.stack], "by": made.by}))
        return True

    def _record(self, persona: str, judgement: Judgement) -> Promotion:
        now, reason, numbers = time.time(), judgement.reason, judgement.numbers
        if judgement.act == "graduate":
            return registry.graduate(self.home, persona, now, reason, numbers)
        if judgement.act == "roll_back":
            return registry.roll_back(self.home, persona, now, reason, by=registry.FEEDBACK)
        return registry.withdraw(self.home, judgement.trial.adapter, now, reason, numbers)

    def _suspect(self, judgement: Judgement, facts: dict[str, object], told: Told) -> bool:
        """Says once of a version that it is worse, and leaves it."""
        adapter = judgement.trial.adapter
        if judgement.act == "withdraw" and adapter not in self.suspected:
            self.suspected.add(adapter)
            told.append(("regression_suspected", facts))
        return False

    def _set_aside(self, persona: str) -> None:
        """What withdrawn versions were made of leaves the archive. Done again after a crash."""
        history = registry.history(self.home, persona)
        for adapter in promotions.quarantined(history):
            with suppress(NotFound), files.locked(self.home.lock):  # pruned since, or brought in from elsewhere
                if made_of := adapters.manifest(self.home, adapter).batch:
                    batches.withdraw(self.home, batches.find(self.home, made_of), f"{adapter} was withdrawn")


def span_days(config: Config) -> float:
    """How long samples are wanted: so long before a version began, and so long after."""
    return 2 * config.feedback.days


def judge(home: Home, config: Config, feedback: Feedback, persona: str) -> list[Judgement]:
    """What feedback says of every version of a persona that serves."""
    history = registry.history(home, persona)
    return [
        trials.judge(trial, feedback.arrived(persona, trial.domain, config.feedback.metric, 0.0), config, time.time())
        for trial in (trials.of(history) if history else ())
    ]

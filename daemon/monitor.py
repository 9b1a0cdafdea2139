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
from genome import adapters, alerts, batches, files, promotions, registry, trials
from genome.adapters import AdapterId
from genome.config import Config
from genome.errors import Conflict, Damaged, NotFound
from genome.feedback import Feedback
from genome.layout import Home
from genome.promotions import Promotion
from genome.trials import Judgement

REST_SECONDS = 1.0
"""Signals may arrive by the thousand a second; nobody needs a version withdrawn sooner than this."""

ENDS = {"graduate": "graduated", "roll_back": "canary_ended", "withdraw": "rolled_back"}
"""By what was done: the event that tells it. Of a canary that only ran out of time nothing bad was shown."""


@dataclass
class Monitor:
    home: Home
    config: Config
    announcer: Announcer
    deployer: Alarm
    standing: dict[str, str] = field(default_factory=dict)
    """By adapter id: what feedback says of it so far, for `genome status`."""
    suspected: set[str] | None = None
    """Adapter ids that should no longer serve and were left to, and told. None: what the last daemon told is not read
    yet."""
    news: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    """What is to be told: found in a thread, and watchers are served by the event loop."""
    feedback: Feedback = field(init=False)

    name = "monitor"

    def __post_init__(self) -> None:
        self.feedback = Feedback(self.home, span_days(self.config))

    async def step(self) -> float | None:
        """Judges every version that serves. Returns when time alone would end a canary."""
        try:
            return await anyio.to_thread.run_sync(self._judge_all)
        finally:  # a record that was made is told and deployed, whatever failed after it
            if self.news:
                self.deployer.ring()
            while self.news:
                name, facts = self.news.pop(0)
                self.announcer.tell(name, **facts)

    def _judge_all(self) -> float | None:
        looks, standing = [], {}
        if self.suspected is None:
            self.suspected = suspected(self.home)
        for promotion in registry.newest(self.home):
            try:
                newest, judged = promotion, self._judge(promotion)
                while any(self._carry_out(newest, each) for each in judged):
                    newest = registry.current(self.home, promotion.persona) or promotion
                    judged = self._judge(newest)
                self._end_suspicions(promotion.persona)
                self._set_aside(promotion.persona)
            except Damaged as error:  # the other personas go on
                standing[promotion.persona] = str(error)
                continue
            standing.update({each.trial.adapter: each.reason for each in judged})
            looks += [each.look_again for each in judged if each.look_again is not None and not promotion.pinned]
        self.standing = standing
        return min(looks, default=None)

    def _judge(self, promotion: Promotion) -> list[Judgement]:
        return judge(self.home, self.config, self.feedback, promotion.persona)

    def _carry_out(self, judged: Promotion, judgement: Judgement) -> bool:
        """Whether anything was changed. ``judged``: the record that was the newest when it was judged."""
        trial, persona = judgement.trial, judged.persona
        facts = {"persona": persona, "domain": trial.domain, "adapter": trial.adapter, "reason": judgement.reason}
        if judgement.act == "wait":
            return False
        if judged.pinned or not (trial.canary or self.config.feedback.automatic_rollback):
            if judgement.act == "withdraw":
                self._suspect(facts, f"{persona} is pinned" if judged.pinned else "feedback.automatic_rollback is off")
            return False
        with files.locked(self.home.lock):
            if registry.current(self.home, persona) != judged:
                return False  # somebody was faster: it is judged again
            try:
                made = self._record(persona, judgement)
            except Conflict as error:
                self._suspect(facts, str(error))
                return False
        serving = {"to": [entry.adapter for entry in made.stack], "by": made.by}
        self.news.append((ENDS[judgement.act], facts if judgement.act == "graduate" else facts | serving))
        return True

    def _record(self, persona: str, judgement: Judgement) -> Promotion:
        now, reason, numbers = time.time(), judgement.reason, judgement.numbers
        if judgement.act == "graduate":
            return registry.graduate(self.home, persona, now, reason, numbers)
        if judgement.act == "roll_back":
            return registry.roll_back(self.home, persona, now, reason, by=registry.FEEDBACK)
        return registry.withdraw(self.home, judgement.trial.adapter, now, reason, numbers)

    def _suspect(self, facts: dict[str, object], kept_because: str) -> None:
        """Says once of a version that it should no longer serve, and leaves it."""
        adapter = str(facts["adapter"])
        if self.suspected is not None and adapter not in self.suspected:
            self.suspected.add(adapter)
            self.news.append(("regression_suspected", facts | {"kept_because": kept_because}))

    def _end_suspicions(self, persona: str) -> None:
        """Says of versions that were left to serve that they no longer do, whoever took their place."""
        newest = registry.current(self.home, persona)
        serving = registry.served(self.home, newest).keys() if newest else frozenset()
        for adapter in sorted((self.suspected or set()) - serving):
            made = AdapterId.parse(adapter)
            if made.persona == persona and self.suspected is not None:
                self.suspected.discard(adapter)
                facts: dict[str, object] = {"persona": persona, "domain": made.domain, "adapter": adapter}
                self.news.append(("suspicion_ended", facts))

    def _set_aside(self, persona: str) -> None:
        """What withdrawn versions were made of leaves the archive. Done again after a crash."""
        history = registry.history(self.home, persona)
        for adapter in promotions.quarantined(history):
            with suppress(NotFound), files.locked(self.home.lock):  # pruned since, or brought in from elsewhere
                if made_of := adapters.manifest(self.home, adapter).batch:
                    batches.withdraw(self.home, batches.find(self.home, made_of), f"{adapter} was withdrawn")


def suspected(home: Home) -> set[str]:
    """Adapter ids of which people were told that they should no longer serve, and were left to."""
    with files.locked(home.lock):
        entries = alerts.read(home).conditions
    told = [entry.alert for entry in entries if entry.alert.kind == "suspected" and entry.alert.resolved is None]
    return {str(alert.facts["adapter"]) for alert in told if "adapter" in alert.facts}


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

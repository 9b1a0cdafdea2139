"""When to train: pure functions of what is known of a domain, of the config and of ``now``.

Each trigger is a function from its settings and the `Facts` to a `Decision`. The first that is due wins and says why;
then quiet hours and the cool-down after a refusal may hold it back. `Plan.look_again` is the first time at which time
alone changes any of it, so the planner sleeps until exactly then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from genome import schedules, windows
from genome.schedules import shown, zone
from genome.trigger_facts import Facts, TriggerMemory
from genome.trigger_settings import QualityDrop, Scheduled, Threshold, Triggers

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Decision:
    """What one trigger says."""

    due: bool
    reason: str
    """Why it is due, or what is missing."""
    look_again: float | None = None
    """Seconds since 1970 at which time alone changes it; None: only new signals or samples can."""
    rebuild: bool = False
    """Nothing waits: the domain is to be trained anew from what it was taught before."""
    trigger: str = ""
    """Its key in [triggers]."""


@dataclass(frozen=True)
class Turn:
    """The metric crossed a line: the drop began (``dropped``), or was over."""

    dropped: bool
    metric: str
    value: float | None = None
    """None: it is over because the trigger looks at that metric no more."""
    threshold: float | None = None
    """The line: of the drop, or of its end."""
    samples: int = 0


@dataclass(frozen=True)
class Plan:
    """What all triggers of a domain say together."""

    decision: Decision
    """The first that is due; else all that is missing."""
    said: tuple[Decision, ...]
    """What each trigger says, in the order in which they win."""
    memory: TriggerMemory
    """What is to be remembered before anything is done."""
    after: TriggerMemory
    """What is to be remembered once the decision was acted on, or came to nothing."""
    short: bool = False
    """What is due waits for more signals …"""
    held_until: float | None = None
    """… or until then …"""
    held_by: str = ""
    """… for this."""
    turn: Turn | None = None
    look_again: float | None = None

    @property
    def start(self) -> bool:
        """Whether training is to start now."""
        return self.decision.due and self.held_until is None and not self.short

    @property
    def reason(self) -> str:
        return f"{self.decision.reason}; it waits: {self.held_by}" if self.held_by else self.decision.reason


def threshold(settings: Threshold, facts: Facts, now: float) -> Decision:
    """Due when what waits weighs ``min_examples``, or when the oldest has waited ``max_wait_hours``."""
    pending, enough = facts.pending, settings.min_examples
    weight = round(pending.weight, 6)  # a thousand tenths are a hundred
    counted = f"threshold: {f'{weight:.2f}'.rstrip('0').rstrip('.')} of {enough} examples wait"
    if weight != pending.examples:
        counted += f" ({pending.examples} signals, silver counts half)"
    if weight >= enough:
        return Decision(True, counted, trigger="threshold")
    if pending.oldest is None:
        return Decision(False, counted, trigger="threshold")
    due_at = pending.oldest + settings.max_wait_hours * 3600
    if now >= due_at:
        waits = f"the oldest of {pending.examples} waits {settings.max_wait_hours:g} hours"
        return Decision(True, f"threshold: {waits}", trigger="threshold")
    return Decision(False, counted, due_at, trigger="threshold")


def scheduled(settings: Scheduled, facts: Facts, now: float) -> Decision:
    """Due from a time that the expression names until a batch was formed, or nothing to train was found.

    However many of them passed meanwhile, one run answers them all.
    """
    local = zone(settings.time_zone)
    later = schedules.next_run(settings.cron, local, now)
    missing = Decision(False, f"scheduled: next at {shown(later, local)}", later, trigger="scheduled")
    run = _run_due(settings, facts, now)
    if run is None:
        return missing
    reason = f"scheduled: the run of {shown(run, local)}"
    if facts.pending.examples:
        return Decision(True, reason, later, trigger="scheduled")
    if settings.only_if_data:
        return replace(missing, reason=f"{reason} found nothing waiting; next at {shown(later, local)}")
    return Decision(True, f"{reason}, with nothing new", later, rebuild=True, trigger="scheduled")


def quality_drop(settings: QualityDrop, facts: Facts, now: float) -> Decision:
    """Due from a drop until a batch was formed, or the metric rose again. Wants a memory that `turned` brought up."""
    seen, memory = windows.window(settings, facts.samples, now), facts.memory
    mean, count = seen.mean, len(seen.samples)
    if mean is None:
        missing = f"{count} of {settings.min_samples} samples of {settings.metric}"
        look_again = None
    else:
        missing = f"{settings.metric} is {mean:.3f} over {count} samples"
        look_again = seen.falls_below(settings.threshold)
    if not memory.recovered and memory.dropped is not None:
        dropped = f"quality_drop: {settings.metric} fell below {settings.threshold:g}"
        over = seen.rises_to(settings.threshold + settings.hysteresis) if mean is not None else None
        if facts.formed is None or facts.formed < memory.dropped / 1000:
            return Decision(True, f"{dropped}: {missing}", over, trigger="quality_drop")
        back = settings.threshold + settings.hysteresis
        return Decision(False, f"{dropped}, and was trained for; again once it reaches {back:g}", over,
                        trigger="quality_drop")  # fmt: skip
    if mean is not None and mean < settings.threshold:  # and yet no drop: the last one is too recent
        look_again = _cooled_down(settings, memory)
        missing += ", too soon after the last drop"
    return Decision(False, f"quality_drop: {missing}, {settings.threshold:g} is enough", look_again,
                    trigger="quality_drop")  # fmt: skip


def look(triggers: Triggers, facts: Facts, now: float) -> Plan:
    """What there is to do for a domain, and when to look again."""
    memory, turn = turned(triggers.quality_drop, facts, now)
    facts = replace(facts, memory=_begun(triggers.scheduled, memory, now))
    said = tuple(_said(triggers, facts, now))
    decision = next((each for each in said if each.due), None)
    if decision is None:
        decision = Decision(False, "; ".join(each.reason for each in said) or "no trigger is set")
    done = _answered(triggers.scheduled, facts, now)
    short = decision.due and not decision.rebuild and facts.pending.examples < facts.wanted
    held_until, held_by = held(triggers, facts, now) if decision.due else (None, "")
    if short:
        few = f"the last batch was too small to judge; {facts.pending.examples} of {facts.wanted} examples are there"
        held_by = f"{few}, and {held_by}" if held_by else few
    looks = [each.look_again for each in said if each.look_again is not None]
    if held_until is not None:
        looks.append(held_until)
    if turn is not None and turn.value is None:
        looks.append(now)  # the metric that counts now may have dropped as well
    idle = not any(each.due for each in said if each.trigger == "scheduled")
    return Plan(decision, said, done if idle else facts.memory, done, short, held_until, held_by,
                turn, min(looks, default=None))  # fmt: skip


def held(triggers: Triggers, facts: Facts, now: float) -> tuple[float | None, str]:
    """Until when nothing starts by itself, and why; None: it may start."""
    local = zone(triggers.time_zone)
    until, reasons = now, []
    cooldown = (facts.refused or 0.0) + triggers.refusal_cooldown_hours * 3600
    if facts.refused is not None and cooldown > now:
        until = cooldown
        reasons.append(f"a batch was set aside, and until {shown(until, local)} nothing is started by itself")
    quiet = schedules.quiet_until(triggers.quiet_hours, local, until)
    if quiet is not None:
        until = quiet
        reasons.append(f"quiet hours until {shown(quiet, local)}")
    return (until, ", then ".join(reasons)) if reasons else (None, "")


def turned(settings: QualityDrop | None, facts: Facts, now: float) -> tuple[TriggerMemory, Turn | None]:
    """The memory after a look at the metric. A drop begins once, and again only after its end and the cool-down."""
    memory = facts.memory
    if memory.metric and not memory.recovered and (settings is None or settings.metric != memory.metric):
        return _with(memory, metric="", dropped=None, recovered=True), Turn(False, memory.metric)
    if settings is None:
        return memory, None
    seen = windows.window(settings, facts.samples, now)
    mean, count, back = seen.mean, len(seen.samples), settings.threshold + settings.hysteresis
    if mean is None:
        return memory, None
    if not memory.recovered:
        if mean < back:
            return memory, None
        return _with(memory, recovered=True), Turn(False, settings.metric, mean, back, count)
    if mean >= settings.threshold or now < (_cooled_down(settings, memory) or now):
        return memory, None
    fallen = _with(memory, metric=settings.metric, recovered=False, dropped=int(now * 1000))
    return fallen, Turn(True, settings.metric, mean, settings.threshold, count)


def _said(triggers: Triggers, facts: Facts, now: float) -> list[Decision]:
    said = []
    if triggers.threshold:
        said.append(threshold(triggers.threshold, facts, now))
    if triggers.scheduled:
        said.append(scheduled(triggers.scheduled, facts, now))
    if triggers.quality_drop:
        said.append(quality_drop(triggers.quality_drop, facts, now))
    return said


def _cooled_down(settings: QualityDrop, memory: TriggerMemory) -> float | None:
    if memory.dropped is None or memory.metric not in ("", settings.metric):
        return None
    return memory.dropped / 1000 + settings.cooldown_hours * 3600


def _run_due(settings: Scheduled, facts: Facts, now: float) -> float | None:
    """The newest time of the schedule that nothing has answered yet."""
    run = schedules.newest_run(settings.cron, zone(settings.time_zone), now)
    looked_at = now if facts.memory.looked_at is None else facts.memory.looked_at / 1000
    answered = facts.formed is not None and facts.formed >= run
    skipped = settings.missed == "skip" and run <= facts.watched_since
    return None if run <= looked_at or answered or skipped else run


def _begun(settings: Scheduled | None, memory: TriggerMemory, now: float) -> TriggerMemory:
    """A schedule that is new begins now: there is no earlier run to catch up on. So does one whose clock was years
    ahead; not one whose clock was set back a little, for its last run would come again."""
    if settings is None:
        return memory
    schedule = f"{settings.cron} {settings.time_zone}".strip()
    if memory.schedule == schedule and memory.looked_at is not None and memory.looked_at <= (now + DAY_SECONDS) * 1000:
        return memory
    return _with(memory, schedule=schedule, looked_at=int(now * 1000))


def _answered(settings: Scheduled | None, facts: Facts, now: float) -> TriggerMemory:
    """The memory once the newest run is done with."""
    memory = facts.memory
    if settings is None:
        return memory
    run = int(schedules.newest_run(settings.cron, zone(settings.time_zone), now) * 1000)
    return memory if memory.looked_at is not None and run <= memory.looked_at else _with(memory, looked_at=run)


def _with(memory: TriggerMemory, **changed: object) -> TriggerMemory:
    return memory.model_copy(update=changed)

"""[triggers] of genome.toml, and how the tables of a persona and of a domain differ from it, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from genome import schedules
from genome.feedback import SATISFACTION


class Section(BaseModel):
    """One table of genome.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Threshold(Section):
    """Train once so many examples wait, or the oldest has waited so long."""

    min_examples: int = Field(500, ge=1)
    """By weight: a silver signal counts half."""
    max_wait_hours: float = Field(168.0, gt=0)


class Scheduled(Section):
    """Train at the times a cron expression names."""

    cron: str = "@weekly"
    """Five fields, or a name such as ``@daily``."""
    time_zone: str = ""
    """IANA name; empty: `Triggers.time_zone`."""
    only_if_data: bool = True
    """False: with nothing waiting, the domain is trained anew from what it was taught before."""
    missed: Literal["once", "skip"] = "once"
    """Runs whose time passed while the daemon was down: one for all of them, or none."""

    _cron = field_validator("cron")(schedules.check_cron)

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        return _known_zone(name)


class QualityDrop(Section):
    """Train when the mean of a metric fell; once a drop."""

    metric: str = Field(SATISFACTION, min_length=1)
    """More of it is better."""
    threshold: float = 0.7
    """A mean below it is a drop …"""
    hysteresis: float = Field(0.05, ge=0)
    """… which is over when the mean reaches ``threshold + hysteresis``."""
    window_hours: float = Field(168.0, gt=0)
    """The mean is of samples no older than this …"""
    window_samples: int = Field(0, ge=0)
    """… and of the newest so many. 0: of all."""
    min_samples: int = Field(20, ge=1)
    """With fewer in the window nothing is concluded."""
    cooldown_hours: float = Field(24.0, ge=0)
    """Least time from one drop to the next."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> QualityDrop:
        if 0 < self.window_samples < self.min_samples:
            raise ValueError(f"window_samples is below min_samples, {self.min_samples}: nothing would ever drop")
        if self.metric == SATISFACTION and self.threshold + self.hysteresis > 1:
            raise ValueError(f"threshold + hysteresis is above 1, and {self.metric} is not: no drop would ever be over")
        return self


class Triggers(Section):
    """When training starts by itself. The first that is due wins; None: off."""

    threshold: Threshold | None = Threshold()
    scheduled: Scheduled | None = None
    quality_drop: QualityDrop | None = None
    refusal_cooldown_hours: float = Field(0.0, ge=0)
    """After a batch was set aside, nothing is started in its domain by itself for so long."""
    quiet_hours: tuple[str, ...] = ()
    """Periods of the day such as ``22:00-07:00``: what is due waits until they end."""
    time_zone: str = ""
    """IANA name; empty: the machine's own."""

    _quiet_hours = field_validator("quiet_hours")(schedules.check_quiet)

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        return _known_zone(name)

    @model_validator(mode="before")
    @classmethod
    def _off_is_false(cls, given: Any) -> Any:
        """TOML knows no null: ``threshold = false`` switches it off. And the schedule's time zone is that of all."""
        if not isinstance(given, Mapping):
            return given
        filled = {key: None if key in TRIGGERS and value is False else value for key, value in given.items()}
        schedule = filled.get("scheduled")
        if isinstance(schedule, Mapping) and not schedule.get("time_zone") and given.get("time_zone"):
            filled["scheduled"] = {**schedule, "time_zone": given["time_zone"]}
        return filled


TRIGGERS = ("threshold", "scheduled", "quality_drop")


def spread(given: Any) -> Any:
    """A raw genome.toml in which the triggers of each persona and domain are whole: its own keys over the wider ones.

    Merged before anything is validated, so that a wrong key is named where it stands.
    """
    if not isinstance(given, Mapping) or not isinstance(given.get("personas"), Mapping):
        return given
    everybody = given.get("triggers", {})
    return {**given, "personas": {name: _spread_persona(everybody, table) for name, table in given["personas"].items()}}


def _spread_persona(everybody: Any, table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    spread = dict(table)
    if "triggers" in table:
        spread["triggers"] = merged(everybody, table["triggers"])
    if isinstance(table.get("domains"), Mapping):
        wider = spread.get("triggers", everybody)
        spread["domains"] = {
            name: {**domain, "triggers": merged(wider, domain["triggers"])}
            if isinstance(domain, Mapping) and "triggers" in domain
            else domain
            for name, domain in table["domains"].items()
        }
    return spread


def merged(wider: Any, own: Any) -> Any:
    """``own`` over ``wider``, table by table."""
    if not (isinstance(wider, Mapping) and isinstance(own, Mapping)):
        return own
    return {**wider, **{key: merged(wider.get(key), value) for key, value in own.items()}}


def _known_zone(name: str) -> str:
    schedules.zone(name)
    return name

"""Feedback: what people and applications say about replies, as samples of a metric for the version that answered."""

from __future__ import annotations

from dataclasses import dataclass

SATISFACTION = "user_satisfaction"
"""The metric that signals themselves give: positive is 1, mistake and correction are 0."""


@dataclass(frozen=True)
class Sample:
    """One observation of a metric."""

    time: float
    """Seconds since 1970."""
    metric: str
    value: float
    """user_satisfaction: 0 or 1."""
    adapter: str = ""
    """Id of the version that answered, where it is known."""

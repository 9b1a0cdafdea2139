"""Whose turn it is to train: personas take turns, whatever each has waiting."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A job that may run."""

    job: str
    persona: str
    domain: str
    left_running: bool = False
    """A process that a crashed daemon started still works on it."""


def next_job(
    waiting: Sequence[Waiting], running: Collection[tuple[str, str]], served: Mapping[str, float]
) -> Waiting | None:
    """The oldest job of the persona that was served least recently; None: none may run.

    ``waiting``: oldest first. ``running``: (persona, domain) of the jobs under way; a domain trains one at a time,
    since each goes on from the one before. ``served``: when a job of each persona was last started, in seconds since
    1970. With n personas that have jobs, each is served again after n - 1 others, whatever each has waiting. Only a job
    that is being worked on goes before: its process is stopped and started again, so there is never one too many.
    """
    free = [job for job in waiting if (job.persona, job.domain) not in running]
    return min(free, key=lambda job: (not job.left_running, served.get(job.persona, 0.0)), default=None)

"""What the gate last said of a domain."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from fixed import NOW
from whole_home import fill, judged, ordered, trained

from genome import jobs
from genome.layout import Home
from genome.verdicts import Newest


def test_completed_jobs_are_looked_at_when_one_came(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many domains are asked for: thousands that lie there cost one look at the directory's time."""
    newest, looks, listed = Newest(home), [], jobs.completed
    monkeypatch.setattr(jobs, "completed", lambda of: looks.append(of) or listed(of))

    def verdict(number: int) -> None:
        batch = fill(home, [signal(10 * number + each) for each in range(10)], NOW + number)
        directory = ordered(home, batch, NOW + number)
        trained(home, directory, NOW + number)
        judged(home, directory, batch, False, NOW + number)

    assert newest.of("helper", "git") is None
    for number in (1, 2):
        verdict(number)
        found = newest.of("helper", "git")
        assert found is not None and found.created == (NOW + number) * 1000, "also one that came the same moment"
    long_ago = time.time() - 60 + number
    os.utime(home.completed_jobs, (long_ago, long_ago))
    looks.clear()
    for domain in ("git", "soup", "chess"):
        newest.of("helper", domain)
    assert len(looks) == 1

"""The pruner: daily, told, and not hastened by being woken."""

from __future__ import annotations

from typing import Any

import pytest
import whole_home

from daemon.events import Announcer
from daemon.pruner import Pruner
from genome import fsck, pruning
from genome.config import Config
from genome.layout import Home


async def test_once_a_day_what_may_go_goes(home: Home, signal: Any, drop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told what was done; woken again before its time it does nothing."""
    whole_home.make(home, signal, drop, monkeypatch)
    announcer = Announcer()
    loop = Pruner(home, Config(base="x"), announcer)
    with announcer.watch() as events:
        due = await loop.step()
        event = await anext(aiter(events))
    assert event.name == "pruned" and event.facts["compressed"] == 3
    assert "training-jobs/completed/job-2025-11-20-001" in event.facts["removed"]
    assert due is not None and fsck.check(home).problems == ()
    monkeypatch.setattr(pruning, "carry_out", None)
    assert await loop.step() == due

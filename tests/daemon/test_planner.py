"""The planner loop, a step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixed import NOW

from daemon import planner
from daemon.events import Alarm, Announcer
from daemon.planner import Planner
from genome import batches
from genome.buffer import Buffer
from genome.config import Config
from genome.layout import Home
from genome.lines import from_signal

pytestmark = pytest.mark.anyio
CONFIG = Config.model_validate(
    {"base": "base", "triggers": {"threshold": {"min_examples": 5}}, "gate": {"anchors": 0, "min_held_out": 2},
     "training": {"trainer": "torch"}}
)  # fmt: skip


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_damaged_domain_holds_up_no_other(home: Home, signal: Callable[..., Any]) -> None:
    """Its line is named where one looks for what a domain waits for; the others are sealed and ordered."""
    lines = [from_signal(signal(number, domain=domain)) for domain in ("a", "b") for number in range(10)]
    Buffer(home, CONFIG.intake).accept(lines, NOW)
    segment = next(home.pending("helper", "a").glob("*.jsonl"))
    segment.write_bytes(b"{}\n" + segment.read_bytes())
    loop = Planner(home, CONFIG, home.root, "f" * 64, None, Announcer(), Alarm())  # type: ignore[arg-type]
    await loop.step()
    assert [batch.domain for batch in batches.all_queued(home)] == ["b"]
    assert "genome fsck" in loop.waiting["helper/a"] and planner.unordered(home) == []


async def test_what_came_to_nothing_is_not_sealed_again(home: Home, signal: Callable[..., Any]) -> None:
    """Signals that lose to archived ones leave too few: they are looked at again when more wait, not at every wake."""
    into = Buffer(home, CONFIG.intake)
    policy = batches.HeldOutPolicy(0.3, 150)
    into.accept([from_signal(signal(number)) for number in range(10)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, policy)
    assert batch is not None
    batches.archive(home, batch)
    loop = Planner(home, CONFIG, home.root, "f" * 64, None, Announcer(), Alarm())  # type: ignore[arg-type]
    into.accept([from_signal(signal(number, source="ai", correctOutput="other")) for number in range(10)], NOW)
    for _ in range(3):
        await loop.step()
        into.accept([from_signal(signal(0, id="again"))], NOW)  # a duplicate but for the first: nothing new waits
    assert len(list(home.pending("helper", "git").glob("*.jsonl"))) == 2 and batches.all_queued(home) == []

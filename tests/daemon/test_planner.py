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

"""The ingest loop, a step at a time."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.events import Alarm, Announcer
from daemon.ingest import Ingest
from genome import pending
from genome.buffer import Buffer
from genome.config import Config
from genome.layout import Home

CONFIG = Config.model_validate({"base": "base", "intake": {"settle_seconds": 0, "inbox_retention_hours": 0}})


def started(home: Home, config: Config = CONFIG) -> Ingest:
    buffer = Buffer(home, config.intake)
    buffer.load()
    return Ingest(home, config, buffer, Announcer(), Alarm(), Alarm())


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
async def test_a_reused_inode_hides_no_line(
    home: Home, drop: Callable[..., Path], correction: Callable[..., Any], restart: bool
) -> None:
    """A cleared file's inode and first line come again with other lines behind them: all of those are taken."""
    keep = {"settle_seconds": 0, "inbox_retention_hours": 1}  # by hand below, so that the inode certainly stays
    config = CONFIG.model_copy(update={"intake": CONFIG.intake.model_copy(update=keep)})
    path = drop(correction(0), correction(1), correction(2))
    ingest = started(home, config)
    await ingest.step()
    path.write_bytes(b"\n".join(json.dumps(correction(number)).encode() for number in (0, 3, 4, 5)) + b"\n")
    await (started(home, config) if restart else ingest).step()
    assert pending.count(home, "helper", "git").examples == 6


async def test_what_was_cleared_is_forgotten(
    home: Home, drop: Callable[..., Path], correction: Callable[..., Any]
) -> None:
    """Once its lines are durable and its time is over, a file goes and nothing of it stays in memory."""
    path, ingest = drop(correction(0)), started(home)
    await ingest.step()
    assert not path.exists() and ingest.buffer.progress == {} and ingest.seen == {}


async def test_a_damaged_compressed_file_is_kept(home: Home, correction: Callable[..., Any]) -> None:
    """What lies behind the damage is nowhere else: it is told and left to a person, however long it lies there."""
    whole = gzip.compress(b"".join(json.dumps(correction(number)).encode() + b"\n" for number in range(2000)))
    path = home.inbox / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    ingest = started(home)
    told: list[str] = []
    ingest.announcer.log = SimpleNamespace(info=lambda name, **_facts: told.append(name))
    for _ in range(3):
        await ingest.step()
    assert path.exists() and told.count("file_damaged") == 1
    path.write_bytes(whole)
    await ingest.step()
    assert pending.count(home, "helper", "git").examples == 2000 and not path.exists()

"""What a supervisor removes when it starts: the half-made things of the one before, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon import supervisor
from genome.files import UNFINISHED
from genome.layout import Home


@pytest.fixture
def half_made(home: Home) -> dict[str, Path]:
    places = {
        "adapter": home.adapter(f"helper/{UNFINISHED}git-v1.0"),
        "job": home.active_jobs / f"{UNFINISHED}job-1",
        "batch": home.queued("helper", "git") / f"{UNFINISHED}batch-1",
        "checkpoints being removed": home.checkpoints(f"{UNFINISHED}job-1"),
        "checkpoint being written": home.checkpoints("job-2") / f"{UNFINISHED}step-1",
        "dropped by the user": home.inbox / f"{UNFINISHED}folder",
    }
    for place in places.values():
        place.mkdir(parents=True)
        (place / f"{UNFINISHED}file").write_bytes(b"some")
    return places


def test_a_start_removes_what_a_crash_left_half_made(home: Home, half_made: dict[str, Path]) -> None:
    """All of it, except where a trainer that nobody listens to any more may still be writing, and in the inbox."""
    supervisor.recover(home)
    left = {what for what, place in half_made.items() if (place / f"{UNFINISHED}file").exists()}
    assert left == {"checkpoint being written", "dropped by the user"}

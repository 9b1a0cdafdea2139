"""Promise 2: stop it anywhere, start it again, it goes on. GENOME_TORTURE=1 visits every point, else a sample."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import campaign


@pytest.mark.timeout(1800)
def test_a_turn_goes_on_from_wherever_it_was_killed(tmp_path: Path) -> None:
    """Killed before, within or after any act on the disk, nothing is half visible, and a start ends the turn once."""
    said = campaign(tmp_path, "crash_points", share=0.2)
    assert ", 0 violations" in said, said


def test_a_turn_that_writes_in_place_is_caught(tmp_path: Path) -> None:
    """The proof sees what it is for: records written under their final names are found half there."""
    said = campaign(tmp_path, "crash_points", share=0.06, sabotage="in-place")
    assert "is not whole" in said, said

"""Promise 1 over a power cut. GENOME_TORTURE=1 starts from every state a medium may be left in, else from a sample."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from campaigns import campaign


def test_lines_and_their_names_are_synced_before_their_source_is_removed(tmp_path: Path) -> None:
    """When an inbox file is unlinked, or a call answered, a power cut takes none of its lines."""
    said = campaign(tmp_path, "lost_writes", "order")
    assert ", 0 violations" in said, said


@pytest.mark.timeout(1800)
def test_a_turn_goes_on_from_whatever_a_power_cut_leaves(tmp_path: Path) -> None:
    """With any of its unsynced acts lost, torn or all there, a start ends the turn and loses and repeats nothing."""
    said = campaign(tmp_path, "lost_writes", "states", share=0.4)
    assert ", 0 violations" in said, said


@pytest.mark.timeout(3600)
def test_what_a_killed_process_left_unsynced_is_not_taken_for_stored(tmp_path: Path) -> None:
    """Killed, started again and then cut off from power: what the second process acknowledged is there."""
    said = campaign(tmp_path, "lost_writes", "killed", share=0.1)
    assert ", 0 violations" in said, said


@pytest.mark.parametrize("sabotage", ["lines-unsynced", "names-unsynced", "source-first"])
def test_a_missing_sync_is_caught(tmp_path: Path, sabotage: str) -> None:
    """The proof sees what it is for: without one of the syncs, or in the other order, acknowledged lines are lost."""
    said = campaign(tmp_path, "lost_writes", "order", sabotage=sabotage)
    assert "was acknowledged before these were sure" in said, said


def test_a_start_that_believes_what_it_finds_is_caught(tmp_path: Path) -> None:
    """The proof sees what it is for: without the sync at the start, a killed process's lines are lost."""
    said = campaign(tmp_path, "lost_writes", "killed", share=0.1, sabotage="found-unsynced")
    assert re.search(r"covered, [1-9]\d* violations", said), said

"""Promise 1 on a failing disk. GENOME_TORTURE=1 lets every call fail in every way, else a sample."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import campaign


@pytest.mark.timeout(1800)
def test_a_turn_survives_the_failure_of_any_call(tmp_path: Path) -> None:
    """No room, a broken medium, too many open files, a short write: tried again, all is there once, and synced."""
    said = campaign(tmp_path, "failing_calls", share=0.08)
    assert ", 0 violations" in said, said


def test_a_failed_sync_that_is_passed_over_is_caught(tmp_path: Path) -> None:
    """The proof sees what it is for: lines acknowledged after a sync that failed count as lost."""
    said = campaign(tmp_path, "failing_calls", share=0.06, sabotage="errors-ignored")
    assert "was acknowledged before these were sure" in said, said

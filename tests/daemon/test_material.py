"""What the demo teaches and asks: the split is the program's, and it leaks nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.demo import material
from genome.errors import InvalidInput


def test_a_tenth_of_a_files_questions_is_held_out(tmp_path: Path, correction: Callable[..., Any]) -> None:
    """No held-out question is in a dropped line, also where the file repeats questions with other answers."""
    lines = [correction(i % 200, correctOutput=f"answer {i}") for i in range(300)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    taught = material.from_file(path)
    dropped, held_out = ({signal.question for signal in part} for part in (taught.lines, taught.held_out))
    assert len(held_out) == 20 and len(dropped) == 180 and not dropped & held_out
    assert len(taught.lines) + len(taught.held_out) == 300


def test_the_shipped_questions_are_in_no_shipped_line() -> None:
    """500 corrections, 100 other questions of the same kind, 100 of skills the corrections do not touch."""
    taught = material.shipped()
    dropped, held_out, skills = (
        {signal.question for signal in part} for part in (taught.lines, taught.held_out, taught.skills)
    )
    assert (len(dropped), len(held_out), len(skills)) == (500, 100, 100)
    assert not dropped & held_out and not dropped & skills and not held_out & skills


def test_the_control_gives_every_question_anothers_answer() -> None:
    """The same questions, the same answers, none where it belongs unless two questions share it."""
    lines = material.shipped().lines
    moved = material.shuffled(lines)
    assert [signal.question for signal in moved] == [signal.question for signal in lines]
    assert sorted(str(signal.correct_output) for signal in moved) == sorted(str(s.correct_output) for s in lines)
    kept = sum(old.correct_output == new.correct_output for old, new in zip(lines, moved, strict=True))
    assert kept < len(lines) * 0.02


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """File and line, before anything is started."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\nnope\n')
    with pytest.raises(InvalidInput, match=r"mine\.jsonl:2: not JSON"):
        material.from_file(path)

"""Promise 1 at a batch's end: its segments belong to it, wherever they lie by then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixed import NOW

from genome import batches, files
from genome.buffer import Buffer
from genome.config import Intake
from genome.errors import Damaged
from genome.layout import Home
from genome.lines import from_signal


def test_segments_that_could_not_follow_their_batch_are_not_pending_again(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where moving them fails they are taken all the same, so no second batch trains them; the next try moves them."""
    Buffer(home, Intake()).accept([from_signal(signal(i)) for i in range(10)], NOW)
    policy = batches.HeldOutPolicy(0.3, 150)
    batch = batches.form(home, "helper", "git", "test", NOW, policy)
    assert batch is not None
    move = files.move

    def fails_for_segments(source: Path, target: Path) -> None:
        if source.suffix == ".jsonl":
            raise OSError(5, "Input/output error")
        move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files, "move", fails_for_segments)
        with pytest.raises(OSError, match="Input/output"):
            batches.archive(home, batch)
    assert batches.form(home, "helper", "git", "test", NOW, policy) is None
    batches.archive(home, batch)
    assert len(list(batches.signals(home, batch))) == 10 and not list(home.pending("helper", "git").iterdir())


def test_segments_of_an_unreadable_batch_are_in_no_second_one(home: Home, signal: Callable[..., Any]) -> None:
    """Its record was moved aside: nobody knows which sealed segments are its, so none of them is taken again."""
    into, policy = Buffer(home, Intake()), batches.HeldOutPolicy(0.3, 150)
    into.accept([from_signal(signal(i)) for i in range(10)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, policy)
    assert batch is not None
    record = home.queued("helper", "git") / batch.id / "batch.json"
    record.write_bytes(record.read_bytes().replace(b'"schema": 1', b'"schema": 2'))
    with pytest.raises(Damaged):
        batches.form(home, "helper", "git", "test", NOW, policy)
    into.accept([from_signal(signal(i)) for i in range(10, 20)], NOW)
    second = batches.form(home, "helper", "git", "test", NOW, policy)
    assert second is not None and not set(second.segments) & set(batch.segments) and second.signals == 10


def test_the_same_question_again_is_no_more_evidence(home: Home, signal: Any) -> None:
    """Seven questions asked ten times each hold out two: too few to judge by, however many signals that are."""
    into = Buffer(home, Intake())
    into.load()
    lines = [from_signal(signal(i % 7, id=f"s{i}", correctOutput=f"answer {i % 7}")) for i in range(70)]
    into.accept(lines, NOW)
    assert batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150, 8)) is None


def test_a_question_is_the_same_however_its_context_is_written() -> None:
    """What a model is asked counts: empty context is none, and context before the input is part of it."""
    from genome.lines import Line

    plain = Line(input="how?")
    assert plain.question == Line(input="how?", context="").question == Line(input="how?", history=()).question
    assert Line(input="how?", context="on Linux").question == Line(input="on Linux\n\nhow?").question != plain.question

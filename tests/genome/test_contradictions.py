"""Two right answers to one question: one of them counts, and the other is never taught, replayed or asked again."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fixed import NOW

from daemon import exam, status
from genome import batches, contradictions, curriculum, pending
from genome.batches import Batch, HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.layout import Home
from genome.lines import from_signal
from genome.segments import Stored

Make = Callable[..., Any]
POLICY = HeldOutPolicy(0.3, 150)
CONFIG = Config(base="x")


def stored(signal: Make, answer: str, **fields: Any) -> Stored:
    made = signal(fields.pop("number", 0), correctOutput=answer, id=answer, **fields)
    return Stored(from_signal(made), 0)


def losers(new: list[Stored], old: list[Stored] | None = None) -> tuple[set[str], set[str]]:
    lost = contradictions.find(new, old or [])
    return set(lost.here), set(lost.earlier)


def test_the_later_of_equal_sources_wins(signal: Make) -> None:
    """By their timestamps, in whatever order they came; of equal ones the one that came last."""
    late, early = stored(signal, "late", timestamp=2), stored(signal, "early", timestamp=1)
    assert losers([early, late]) == losers([late, early]) == ({"early"}, set())
    first, second = stored(signal, "first", timestamp=1), stored(signal, "second", timestamp=1)
    assert losers([first, second]) == ({"first"}, set())
    assert losers([second], [first]) == (set(), {"first"})


@pytest.mark.parametrize(("higher", "lower"), [("human", "ai"), ("ai", "automated"), ("human", "automated")])
def test_the_higher_source_wins_over_the_later(signal: Make, higher: str, lower: str) -> None:
    """What a person said stands against any number of later programs; its weight does not count here."""
    said = stored(signal, "said", source=higher, timestamp=1, weight=0.1)
    later = [stored(signal, f"later {i}", source=lower, timestamp=2 + i, weight=100) for i in range(3)]
    assert losers([said, *later]) == ({"later 0", "later 1", "later 2"}, set())
    assert losers(later, [said]) == ({"later 0", "later 1", "later 2"}, set())
    assert losers([said], later) == (set(), {"later 0", "later 1", "later 2"})


def test_only_another_answer_to_the_same_question_contradicts(signal: Make) -> None:
    """The same answer agrees, another input, context or history asks something else, evidence contradicts nobody."""
    one = stored(signal, "a", timestamp=1)
    others = [
        stored(signal, "b", number=1, timestamp=2),
        stored(signal, "c", context="elsewhere", timestamp=2),
        stored(signal, "d", context={"where": 10**400}, timestamp=2),
        stored(signal, "e", history=[{"role": "user", "content": "before"}], timestamp=2),
        stored(signal, "f", weight=0, timestamp=3),
        Stored(from_signal(signal(0, type="mistake", correctOutput=None, timestamp=4)), 0),
    ]
    assert losers([one, *others]) == losers(others, [one]) == (set(), set())
    again = Stored(from_signal(signal(0, correctOutput="a", id="again", timestamp=9)), 0)
    assert losers([one, again]) == (set(), set())


def batch_of(home: Home, signal: Make, numbers: range, said: str, **fields: Any) -> Batch:
    """A queued batch in which each of ``numbers`` is answered with ``said``."""
    into = Buffer(home, Intake())
    into.load()
    lines = [from_signal(signal(i, correctOutput=f"{said} {i}", id=f"{said} {i}", **fields)) for i in numbers]
    assert into.accept(lines, NOW).accepted == len(lines)
    made = batches.form(home, "helper", "git", "test", NOW, POLICY)
    assert made is not None
    return made


def ids(signals: Any) -> set[str]:
    return {signal.id for signal in signals}


def counts(home: Home) -> dict[str, int]:
    (row,) = status.read_buffer(home)["domains"]
    return {name: row[name] for name in ("pending", "evidence", "queued", "archived", "set_aside", "superseded")}


def test_a_superseded_signal_of_the_same_batch_is_not_used(home: Home, signal: Make) -> None:
    """Neither trained on nor held out, and counted once."""
    into = Buffer(home, Intake())
    into.load()
    old = [from_signal(signal(i, correctOutput="old", id=f"old {i}", timestamp=1)) for i in range(20)]
    new = [from_signal(signal(i, correctOutput="new", id=f"new {i}", timestamp=2)) for i in range(20)]
    into.accept([*old, *new], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, POLICY)
    assert batch is not None and batch.signals == 20 and len(batch.held_out) == 6
    used = ids(curriculum.training_part(home, batch)) | ids(curriculum.held_out_part(home, batch))
    assert used == {f"new {i}" for i in range(20)}
    assert counts(home) == {
        "pending": 0, "evidence": 0, "queued": 20, "archived": 0, "set_aside": 0, "superseded": 20
    }  # fmt: skip


def test_a_signal_that_is_beaten_later_is_not_replayed_or_asked_again(home: Home, signal: Make) -> None:
    """From the batch that beats it on; for good once that is promoted, not at all if it is refused."""
    first = batch_of(home, signal, range(40), "old", timestamp=1)
    batches.archive(home, first)
    second = batch_of(home, signal, range(20), "new", timestamp=2)
    assert set(second.supersedes) == {f"old {i}" for i in range(20)}
    assert ids(curriculum.replay_part(home, second, 1000, 5)) <= {f"old {i}" for i in range(20, 40)}
    assert asked(home, second) <= {f"old {i}" for i in range(20, 40)}
    third = batch_of(home, signal, range(100, 120), "other", timestamp=3)
    batches.set_aside(home, second, "worse")
    trained = ids(curriculum.training_part(home, first))
    assert asked(home, third) < trained and len(asked(home, third)) == len(trained) // 2
    assert ids(curriculum.replay_part(home, third, 1000, 200)) == trained - asked(home, third)
    assert set(second.graduates) == set(first.held_out) - set(second.supersedes) and third.graduates == ()
    assert counts(home)["superseded"] == 0
    fourth = batch_of(home, signal, range(20), "newest", timestamp=4)
    batches.archive(home, fourth)
    beaten = {f"old {i}" for i in range(20)}
    assert asked(home, third) < (trained - beaten) | ids(curriculum.training_part(home, fourth))
    assert not ids(curriculum.replay_part(home, third, None, 0)) & beaten
    found = counts(home)
    assert found["superseded"] == 20
    assert sum(found.values()) == 40 + 20 + 20 + 20 and pending.count(home, "helper", "git").examples == 0


def asked(home: Home, batch: Batch) -> set[str]:
    """Ids, by their answers, of what recall asks a candidate of this batch."""
    return {question.answers[0] for question in recall(home, CONFIG, batch)}


def recall(home: Home, config: Config, batch: Batch) -> list[Any]:
    job: Any = SimpleNamespace(base_fingerprint="f" * 64)
    return [question for old in exam.write(home, config, job, batch, ()).old for question in old.questions]


def test_of_a_beaten_question_recall_asks_the_answer_that_won(home: Home, signal: Make) -> None:
    """Also where both lie in earlier batches, and the batch at hand does not ask it."""
    batches.archive(home, batch_of(home, signal, range(40), "old", timestamp=1))
    batches.archive(home, batch_of(home, signal, range(40), "new", timestamp=2))
    third = batch_of(home, signal, range(100, 120), "other", timestamp=3)
    assert asked(home, third) and all(answer.startswith("new") for answer in asked(home, third))


def test_a_program_does_not_unteach_what_a_person_taught(home: Home, signal: Make) -> None:
    """A batch of nothing but beaten signals is not formed."""
    batches.archive(home, batch_of(home, signal, range(20), "said", timestamp=1))
    into = Buffer(home, Intake())
    into.load()
    into.accept([from_signal(signal(i, correctOutput="guess", source="ai", timestamp=9)) for i in range(20)], NOW)
    assert batches.form(home, "helper", "git", "test", NOW, POLICY) is None
    assert pending.count(home, "helper", "git").examples == 20


def test_recall_of_none_asks_none(home: Home, signal: Make) -> None:
    """gate.recall_examples = 0 means none, not all."""
    batches.archive(home, batch_of(home, signal, range(40), "old", timestamp=1))
    second = batch_of(home, signal, range(100, 120), "other", timestamp=3)
    none = CONFIG.model_copy(update={"gate": CONFIG.gate.model_copy(update={"recall_examples": 0})})
    assert recall(home, none, second) == []

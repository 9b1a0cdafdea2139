"""The ledger knows exactly what was added, whatever was written, merged, left lying or damaged in between."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from genome import files, ledger
from genome.layout import Home
from genome.ledger import Ledger, Marks

RUN_IDS = 8


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RUN_IDS", RUN_IDS)


def keys(*numbers: int) -> list[bytes]:
    return [ledger.key("p", "d", f"id {number}") for number in numbers]


def opened(home: Home) -> Ledger:
    made = Ledger(home)
    made.open()
    return made


def fill(into: Ledger, count: int, first: int = 0) -> None:
    """Adds ids one by one, flushed as the buffer does it."""
    for number in range(first, first + count):
        into.add(keys(number))
        if into.full:
            into.flush(Marks())


def knows(held: Ledger, count: int) -> None:
    """Holds exactly the first ``count`` ids, asked in any order."""
    asked = keys(*range(count + 50))
    random.Random(0).shuffle(asked)
    assert held.known(asked) == set(keys(*range(count)))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 100, 500])
def test_it_knows_exactly_what_was_added(home: Home, count: int) -> None:
    """Across flushes and merges; opened again, all that was flushed."""
    held = opened(home)
    fill(held, count)
    knows(held, count)
    again = opened(home)
    knows(again, count - count % RUN_IDS)
    fill(again, 100, first=count - count % RUN_IDS)
    knows(again, count - count % RUN_IDS + 100)


def test_ids_with_one_high_half_are_told_apart(home: Home) -> None:
    """The low half decides, also where several lie side by side."""
    held = opened(home)
    alike = [b"\x11" * 8 + bytes([number]) * 8 for number in range(20)]
    for some in alike[:10]:
        held.add([some])
        if held.full:
            held.flush(Marks())
    held.flush(Marks())
    assert held.known(alike) == set(alike[:10])


def test_ids_added_twice_stay_one(home: Home) -> None:
    """What was read again after a crash lies in two runs and is known as before."""
    held = opened(home)
    fill(held, 40)
    fill(held, 40)
    knows(held, 40)


def test_a_crash_between_a_run_and_its_marks_changes_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is there, the marks are old: what they do not cover is added again, and all is known."""
    held = opened(home)
    fill(held, 16)
    held.add(keys(*range(16, 24)))
    with monkeypatch.context() as patch:
        patch.setattr(Marks, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            held.flush(Marks())
    again = opened(home)
    assert again.marks.flushes == 2
    knows(again, 24)
    fill(again, 30, first=16)
    knows(again, 46)
    knows(opened(home), 46 - (46 - 16) % RUN_IDS)


def test_runs_left_beside_the_one_they_were_merged_into_are_cleared_away(home: Home, tmp_path: Path) -> None:
    """A crash before the old ones were removed leaves both; one lot of them stays."""
    held = opened(home)
    fill(held, 24)
    shutil.copytree(home.ledger, tmp_path / "kept")
    fill(held, 8, first=24)
    (merged,) = home.ledger.glob("*.ids")
    for old in (tmp_path / "kept").glob("*.ids"):
        shutil.copy(old, home.ledger)
    again = opened(home)
    assert list(home.ledger.glob("*.ids")) == [merged]
    knows(again, 32)


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "unlink"])
def test_a_flush_that_fails_forgets_nothing(home: Home, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whichever call it is: all is known meanwhile, the next flush makes it good, and so does starting anew."""
    held = opened(home)
    fill(held, 24)
    held.add(keys(*range(24, 32)))

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, fails)
        with pytest.raises(Exception, match="No space"):
            held.flush(Marks())
    knows(held, 32)
    held.flush(Marks())
    knows(held, 32)
    knows(opened(home), 32)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty", "misnamed", "no marks", "bad marks"])
def test_a_damaged_ledger_begins_anew(home: Home, damage: str) -> None:
    """Nothing of it is believed, nothing of it stays, and it can be filled again."""
    fill(opened(home), 56)
    run = max(home.ledger.glob("*.ids"), key=lambda path: path.stat().st_size)
    data = run.read_bytes()
    if damage == "missing":
        run.unlink()
    elif damage == "cut":
        run.write_bytes(data[:-16])
    elif damage == "flipped":
        run.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "empty":
        run.write_bytes(b"")
    elif damage == "misnamed":
        run.rename(home.ledger / "mine.ids")
    elif damage == "no marks":
        (home.ledger / "marks.json").unlink()
    else:
        (home.ledger / "marks.json").write_bytes(b"{}}")
    held = opened(home)
    assert (held.marks, held.runs) == (Marks(), [])
    knows(held, 0)
    assert not list(home.ledger.glob("*.ids"))
    fill(held, 20)
    knows(opened(home), 16)


def test_memory_does_not_grow_with_history(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a million ids a run of them at most waits in memory, and about log2 of their number are searched."""
    monkeypatch.setattr(ledger, "RUN_IDS", 1 << 16)
    held, step, total = opened(home), 1 << 14, 1_000_000
    rng = np.random.default_rng(0)
    added = []
    for start in range(0, total, step):
        block = rng.bytes(16 * min(step, total - start))
        some = [block[at : at + 16] for at in range(0, len(block), 16)]
        added.append(some[:10])
        held.add(some)
        if held.full:
            held.flush(Marks())
    assert len(held.recent) < ledger.RUN_IDS
    assert len(held.runs) <= math.log2(total / ledger.RUN_IDS) + 1
    sample = [some for few in added for some in few]
    strangers = [rng.bytes(16) for _ in range(1000)]
    assert held.known(sample + strangers) == set(sample)

"""Whatever happens to a file in the drop zone, each of its lines is taken once, and what happened is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drop_zone import SETTLE, DropZone, line, lines

from genome import intake
from genome.layout import Home


@pytest.fixture
def zone(home: Home, monkeypatch: pytest.MonkeyPatch) -> DropZone:
    return DropZone(home, monkeypatch)


def test_a_file_may_grow_for_weeks(zone: DropZone) -> None:
    """A day between appends, restarts in between, half lines: each line is taken once."""
    path = zone.put("log.jsonl", b"")
    whole = lines(*range(60))
    for start in range(0, len(whole), 501):
        zone.append(path, whole[start : start + 501])
        zone.look()
        zone.clock.now += 86_000
        if start % 3 == 0:
            zone.start()
    zone.look()
    assert zone.has(*range(60)) and not zone.refused()


def test_a_truncated_file_is_read_from_its_beginning(zone: DropZone) -> None:
    """Cut and written anew beneath a writer that keeps it open (copytruncate): no line is lost, and it is told."""
    path = zone.put("log.jsonl", lines(*range(20)))
    zone.look()
    zone.rewrite(path, lines(0, 100))
    zone.look()
    assert zone.told.names() == ["file_truncated"]
    zone.rewrite(path, b"")
    zone.look()
    zone.rewrite(path, lines(200, 201))
    zone.look()
    assert zone.has(*range(20), 100, 200, 201)
    assert zone.told.names() == ["file_replaced"]


def test_a_truncation_is_remembered_over_a_restart(zone: DropZone) -> None:
    """What was read of the file before it became shorter says nothing about where to read on."""
    path = zone.put("log.jsonl", lines(*range(20)))
    zone.look()
    zone.append(path, lines(*range(20, 40)))
    zone.look()
    zone.rewrite(path, lines(0, 100))
    zone.look(after=1)
    zone.append(path, lines(*range(101, 200)))
    zone.start()
    zone.look()
    assert zone.has(*range(40), *range(100, 200))


def test_a_file_rewritten_in_place_is_read_from_its_beginning(zone: DropZone) -> None:
    """Though its first line, its inode and its length may be as they were."""
    path = zone.put("a.jsonl", lines(10, 11, 12))
    zone.look()
    zone.rewrite(path, lines(10, 21, 22))
    zone.look(after=1)
    zone.rewrite(path, lines(10, 31, 32, 33, 34))
    zone.look(after=1)
    assert zone.told.names() == ["file_rewritten"] * 2
    assert zone.has(10, 11, 12, 21, 22, 31, 32, 33, 34)


def test_a_file_rewritten_while_nobody_looked_is_known_as_such(zone: DropZone) -> None:
    """Before a start: the same inode and first line, and longer than what was read. It may be another."""
    path = zone.put("a.jsonl", b"\xef\xbb\xbf" + lines(10, 11) + b"nope\n")
    zone.look()
    zone.append(path, lines(12) + b"still nope\n", age=10)
    zone.look()
    zone.append(path, lines(13), age=5)
    zone.start()
    zone.look()
    assert zone.has(10, 11, 12, 13) and zone.told.names() == []
    zone.rewrite(path, b"\xef\xbb\xbf" + lines(10, *range(20, 40)))
    zone.start()
    zone.look()
    assert zone.has(10, 11, 12, 13, *range(20, 40)) and zone.told.names() == ["file_rewritten"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_new_file_with_an_old_inode_is_a_new_file(
    zone: DropZone, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    """The system gives a removed file's inode to the next one; it may begin with the same line."""
    monkeypatch.setattr(intake, "_key", lambda *_: "one-key-for-all")
    path = zone.put("a.jsonl", lines(1) + b"nope\n", age=30 * 3600)
    zone.look()
    assert not path.exists()
    zone.put("b.jsonl", lines(2, 3, 4, 5))
    if restart:
        zone.start()
    zone.look()
    assert zone.has(1, 2, 3, 4, 5)


def test_a_rotated_file_is_read_on_and_the_new_one_from_its_beginning(zone: DropZone) -> None:
    """The old one has a last line that nobody took yet, the new one stands in its place."""
    path = zone.put("log.jsonl", lines(1, 2))
    zone.look()
    zone.append(path, lines(3))
    path.rename(path.with_name("log.1.jsonl"))
    zone.put("log.jsonl", lines(4, 5, 6))
    zone.look()
    assert zone.has(1, 2, 3, 4, 5, 6)
    assert sorted(zone.told.names()) == ["file_renamed", "file_replaced"]


def test_a_replaced_file_is_told(zone: DropZone) -> None:
    """Another file moved over it is another file."""
    zone.put("a.jsonl", lines(1, 2, 3))
    zone.look()
    zone.put("a.jsonl", lines(4))
    zone.look()
    assert zone.has(1, 2, 3, 4) and zone.told.names() == ["file_replaced"]


def test_a_renamed_file_is_told_and_read_on(zone: DropZone) -> None:
    """Nothing in it is taken again."""
    path = zone.put("a.jsonl", lines(1))
    zone.look()
    zone.append(path.rename(path.with_name("b.jsonl")), lines(2))
    zone.look()
    assert zone.has(1, 2) and zone.told.names() == ["file_renamed"] and zone.ingest.duplicates == 0


def test_a_hard_link_is_no_second_file(zone: DropZone) -> None:
    """Two names of one file are read once, and no rename is told."""
    path = zone.put("a.jsonl", lines(1, 2) + b"nope\n")
    os.link(path, path.with_name("b.jsonl"))
    zone.look()
    os.link(path, path.with_name("c.jsonl"))
    zone.look()
    assert zone.has(1, 2) and zone.ingest.duplicates == 0 and zone.refused() == {b"nope": 1}
    assert zone.told.names() == []


def test_a_last_line_without_newline_is_taken_once_still(zone: DropZone) -> None:
    """Also where it is the only one: the look says when to come back."""
    zone.put("one.jsonl", line(1), age=0)
    zone.put("two.jsonl", lines(2) + line(3), age=0)
    assert zone.look() == pytest.approx(SETTLE) and zone.has(2)
    assert zone.look(after=SETTLE / 2) == pytest.approx(SETTLE / 2)
    again = zone.look(after=SETTLE / 2)
    assert zone.has(1, 2, 3) and again is not None and again > 3600  # to clear them away
    zone.append(zone.home.inbox / "one.jsonl", b"\n" + lines(4))
    zone.look()
    assert zone.has(1, 2, 3, 4) and not zone.refused()


def test_a_file_written_to_while_it_is_read_keeps_its_last_line(
    zone: DropZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had been still for an hour; half a line comes just then. It is not taken for the last one."""
    path = zone.put("log.jsonl", lines(1, 2), age=3600)
    real = intake._blocks

    def growing(drop: Any, offset: int) -> Any:
        zone.append(path, line(3)[:30])
        return real(drop, offset)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "_blocks", growing)
        zone.look()
    zone.append(path, line(3)[30:] + b"\n")
    zone.look(after=60)
    assert zone.has(1, 2, 3) and not zone.refused()


def test_a_file_that_vanishes_while_it_is_looked_at_stops_nothing(
    zone: DropZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone, or a directory, a link or a pipe by then: the others are taken in the same look."""
    swaps: list[Callable[[Path], Any]] = [
        lambda path: None,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/null"),
        os.mkfifo,
    ]
    for number, swap in enumerate(swaps):
        path = zone.put("a.jsonl", lines(99))
        zone.put(f"b{number}.jsonl", lines(number))
        real = intake._look

        def swapped(found: Path, *rest: Any, path: Path = path, swap: Any = swap, real: Any = real) -> Any:
            drop = real(found, *rest)
            if found == path:
                path.unlink()
                swap(path)
            return drop

        with monkeypatch.context() as patch:
            patch.setattr(intake, "_look", swapped)
            zone.look()
        assert zone.has(*range(number + 1))
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

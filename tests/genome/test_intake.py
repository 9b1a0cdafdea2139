"""Whatever happens to a file in the drop zone, each of its lines is taken once, and what happened is told."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from drop_zone import SETTLE, DropZone, line, lines

from genome import files, intake, ledger, rejected
from genome.layout import Home


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [("gz", gzip.compress), ("zst", zst)]


@pytest.fixture
def zone(home: Home, monkeypatch: pytest.MonkeyPatch) -> DropZone:
    return DropZone(home, monkeypatch)


# Compressed files


@pytest.mark.parametrize(("suffix", "pack"), PACKERS)
def test_compressed_files_are_read(zone: DropZone, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """Of one member or frame and of several, also where a line goes over the seam, and at once when moved in whole."""
    zone.put(f"one.jsonl.{suffix}", pack(lines(*range(50))), age=0)
    half = lines(*range(50, 100))
    zone.put(f"several.jsonl.{suffix}", pack(half[:777]) + pack(b"") + pack(half[777:]), age=0)
    zone.look()
    assert zone.has(*range(100))
    zone.start()
    zone.look()
    assert zone.has(*range(100)) and not zone.refused()


@pytest.mark.parametrize(("suffix", "pack"), PACKERS)
@pytest.mark.parametrize("damage", ["cut", "flipped", "rubbish"])
def test_the_lines_before_damage_are_taken(
    zone: DropZone, suffix: str, pack: Callable[[bytes], bytes], damage: str
) -> None:
    """The rest is refused once with the reason: not again by another look, a new name, a touch or a restart."""
    first, second = pack(lines(*range(20))), pack(lines(*range(20, 2000)))
    if damage == "cut":
        data = first + second[: len(second) // 2]
    elif damage == "flipped":
        middle = len(first) + len(second) // 2
        data = (first + second)[:middle] + bytes(255 - byte for byte in (first + second)[middle : middle + 64])
    else:
        data = first + b"rubbish" * 10
    path = zone.put(f"a.jsonl.{suffix}", data)
    zone.look()
    assert len(zone.stored()) >= 20 and len(set(zone.stored())) == len(zone.stored())
    reasons = [found.reason for found in rejected.read(zone.home)]
    assert "damaged from here on" in reasons[-1]
    assert len(reasons) == 1 or damage == "flipped"  # which is noticed late: what came out till then is lines or not
    before = zone.stored(), zone.refused()
    zone.look()
    zone.touch(path, 30)
    zone.look()
    path = path.rename(path.with_name(f"b.jsonl.{suffix}"))
    zone.look()
    zone.start()
    zone.look()
    assert (zone.stored(), zone.refused()) == before


@pytest.mark.parametrize(("suffix", "pack"), PACKERS)
def test_a_compressed_file_on_its_way_is_waited_for(
    zone: DropZone, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    """It grows until it is whole and still, and is then taken without a refusal; a small one once it is whole."""
    for name, data in (("small", pack(lines(1))), ("large", pack(b"".join(line(i, session=os.urandom(400).hex()) + b"\n"
                                                                        for i in range(2, 30))))):  # fmt: skip
        path = zone.put(f"{name}.jsonl.{suffix}", b"", age=0)
        for start in range(0, len(data), max(1, len(data) // 9)):
            zone.append(path, data[start : start + max(1, len(data) // 9)])
            again = zone.look()
        assert name == "small" or again == pytest.approx(SETTLE)
        zone.look(after=0 if name == "small" else SETTLE)
    assert zone.has(*range(1, 30)) and not zone.refused()
    assert zone.told.names() == []


@pytest.mark.parametrize(("suffix", "pack"), PACKERS)
def test_a_damaged_file_that_is_completed_loses_nothing(
    zone: DropZone, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    """A copy that paused for longer than a file settles was refused in part; its rest is read from there."""
    data = pack(b"".join(line(i, session=os.urandom(400).hex()) + b"\n" for i in range(200)))
    path = zone.put(f"a.jsonl.{suffix}", data[: len(data) // 2])
    zone.look()
    assert sum(zone.refused().values()) == 1
    zone.append(path, data[len(data) // 2 :], age=10)
    zone.look()
    assert zone.has(*range(200)) and sum(zone.refused().values()) == 1


@pytest.mark.parametrize(("suffix", "pack"), PACKERS)
def test_a_bomb_stays_small_in_memory(zone: DropZone, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """300 MB of zeros become one line over the limit; no more than some blocks of it are held."""
    packed = pack(bytes(300 << 20))
    zone.put(f"a.jsonl.{suffix}", packed + pack(b"\n" + lines(1)))
    tracemalloc.start()
    zone.look()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
    assert zone.has(1) and sum(zone.refused().values()) == 1


# What happens to plain files


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


# What is no data


def test_only_regular_files_are_opened(zone: DropZone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Links, FIFOs, sockets, devices and directories are not opened at all; hidden and temporary names neither."""
    target = tmp_path / "secret.jsonl"
    target.write_bytes(lines(1))
    inbox = zone.home.inbox
    (inbox / "link.jsonl").symlink_to(target)
    (inbox / "dangling.jsonl").symlink_to("nowhere")
    (inbox / "loop.jsonl").symlink_to("loop.jsonl")
    os.mkfifo(inbox / "pipe.jsonl")
    (inbox / "dir.jsonl").mkdir()
    (inbox / "dir.jsonl.gz").mkdir()
    monkeypatch.chdir(inbox)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("socket.jsonl")
    with contextlib.suppress(PermissionError):  # only root makes devices
        os.mknod(inbox / "device.jsonl", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for name in (".hidden.jsonl", "a.jsonl.tmp", "a.jsonl~", "a.json", "a.jsonl.gz.part", ".jsonl"):
        zone.put(name, lines(2))
    (inbox / "helper").symlink_to(tmp_path)
    opened: list[object] = []
    real = os.open

    def watched(path: Any, *rest: Any, **named: Any) -> int:
        opened.append(path)
        return real(path, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(intake.os, "open", watched)
        assert zone.look() is None
    listening.close()
    assert not [path for path in opened if str(path).endswith((".jsonl", ".gz", "~", ".tmp", ".part"))]
    (inbox / ".hidden.jsonl").rename(inbox / "shown.jsonl")
    zone.look()
    assert zone.has(2)


def test_a_name_that_is_no_text_is_a_name(zone: DropZone) -> None:
    """Its lines are stored and refused like others'."""
    path = Path(os.fsdecode(os.fsencode(zone.home.inbox) + b"/\xff\xfe.jsonl"))
    zone.put("plain.jsonl", lines(1) + b"nope\n").rename(path)
    zone.look()
    zone.append(path, lines(2))
    zone.look()
    zone.rewrite(path, lines(1))
    zone.look()
    zone.start()
    zone.look()
    assert zone.has(1, 2) and zone.refused() == {b"nope": 1}


@pytest.mark.parametrize("call", ["open", "pread", "read"])
def test_a_file_that_cannot_be_read_stops_no_other(zone: DropZone, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """It is told once, its place is not forgotten, and when it can be read it is read on."""
    path = zone.put("a.jsonl", lines(1) + b"nope\n")
    zone.look()
    zone.append(path, lines(2), age=10)
    zone.put("b.jsonl", lines(3))
    inode = path.stat().st_ino

    def failing(real: Any) -> Any:
        def called(target: Any, *rest: Any, **named: Any) -> Any:
            mine = target == path if call == "open" else os.fstat(target).st_ino == inode
            if mine:
                raise PermissionError(13, "Permission denied") if call == "open" else OSError(5, "Input/output error")
            return real(target, *rest, **named)

        return called

    with monkeypatch.context() as patch:
        if call == "read":
            real_blocks = intake._blocks

            def blocks(drop: Any, offset: int) -> Any:
                if drop.path == path:
                    raise OSError(5, "Input/output error")
                yield from real_blocks(drop, offset)

            patch.setattr(intake, "_blocks", blocks)
        else:
            patch.setattr(intake.os, call, failing(getattr(os, call)))
        zone.start()
        zone.look()
        zone.look()
        assert zone.has(1, 3) and zone.told.names() == ["file_unreadable"]
    zone.look()
    assert zone.has(1, 2, 3) and zone.refused() == {b"nope": 1}


def test_a_byte_order_mark_moves_no_line(zone: DropZone) -> None:
    """Numbers and offsets of what follows it are those in the file."""
    zone.put("a.jsonl", b"\xef\xbb\xbf" + line(1) + b"\r\nnope\r\n" + line(2) + b"\r\n")
    zone.put("b.jsonl", b"\xef\xbb\xbf")
    zone.look()
    (found,) = rejected.read(zone.home)
    assert (found.line, found.raw_bytes, found.origin.offset) == (2, b"nope", 3 + len(line(1)) + 2)
    assert zone.has(1, 2)


def test_line_numbers_are_right_far_into_a_file(zone: DropZone) -> None:
    """Also where reading began in the middle, chunk after chunk."""
    path = zone.put("a.jsonl", lines(*range(10)))
    zone.look()
    zone.append(path, b"".join(line(i) + b"\nbad %d\n" % i for i in range(10, 40_000)), age=10)
    zone.look()
    assert all(found.line == 10 + 2 * (int(found.raw_bytes[4:]) - 9) for found in rejected.read(zone.home))


# When files are cleared away


def test_taken_files_are_cleared_when_their_time_is_over(zone: DropZone) -> None:
    """Not before, not one that grew meanwhile, and not one whose last line is still open."""
    first, second = zone.put("a.jsonl", lines(1), age=0), zone.put("b.jsonl", lines(2), age=0)
    assert zone.look() == pytest.approx(24 * 3600)
    zone.clock.now += 24 * 3600 - 1
    zone.append(second, lines(3))
    zone.look()
    assert first.exists()
    zone.look(after=1)
    assert not first.exists() and second.exists()
    zone.clock.now += 24 * 3600
    zone.append(second, line(4))
    zone.look()
    assert second.exists() and zone.has(1, 2, 3)
    zone.look(after=24 * 3600)
    assert not second.exists() and zone.has(1, 2, 3, 4)


def test_no_file_is_cleared_before_its_lines_are_durable(zone: DropZone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where syncing fails the file stays, however old it is."""
    path = zone.put("a.jsonl", lines(1), age=10 * 86_400)

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", fails)
        for _ in range(3):
            with pytest.raises(OSError, match="Input"):
                zone.look(after=86_400)
    assert path.exists()
    zone.look()
    assert zone.has(1) and not path.exists()


# Many, and large


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    calls: list[int] = []
    real = getattr(os, name)

    class Counting:
        def __getattr__(self, wanted: str) -> Any:
            return getattr(os, wanted)

    counting = Counting()
    setattr(counting, name, lambda *given: (calls.append(1), real(*given))[1])
    monkeypatch.setattr(files, "os", counting)
    return calls


def test_many_small_files_are_committed_together(zone: DropZone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand files cost as few syncs as one."""
    for number in range(1000):
        zone.put(f"{number}.jsonl", lines(number))
    syncs = counted(monkeypatch, "fsync")
    zone.look()
    assert zone.has(*range(1000)) and len(syncs) < 20


def test_two_chunks_of_a_file_are_one_to_a_crash(zone: DropZone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored domain by domain, a crash between two leaves nothing of the earlier chunk unread."""
    monkeypatch.setattr(intake, "CHUNK_BYTES", 4096)
    data = b"".join(line(i, domain=f"d{9 - i // 8}") + b"\n" + (b"bad %d\n" % i) for i in range(80))
    for crash_at in range(1, 12):
        home = Home(zone.home.root.parent / f"genome{crash_at}")
        home.inbox.mkdir(parents=True)
        mine = DropZone(home, monkeypatch)
        mine.put("a.jsonl", data)
        real, calls = files._append, []

        def append(descriptor: int, stored: bytes, calls: Any = calls, at: int = crash_at, real: Any = real) -> int:
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return int(real(descriptor, stored))

        with monkeypatch.context() as patch:
            patch.setattr(files, "_append", append)
            with pytest.raises(BaseException):
                mine.look()
        mine.start()
        mine.look()
        assert mine.has(*range(80)) and sorted(mine.refused().values()) == [1] * 80


def test_refused_lines_are_forgotten_once_their_file_is_read_past_them(
    zone: DropZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of bad lines alone stays out of memory, and none is refused twice by a restart."""
    monkeypatch.setattr(ledger, "RUN_IDS", 100)
    for number in range(10):
        zone.put(f"{number}.jsonl", b"".join(b"bad %d %d\n" % (number, index) for index in range(50)))
        zone.look()
    assert len(zone.buffer._refused) <= 150
    zone.start()
    zone.look()
    assert len(zone.refused()) == 500 and set(zone.refused().values()) == {1}

"""What is not opened, what cannot be read, when files are cleared away, and many of them at once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from drop_zone import DropZone, line, lines

from genome import files, intake, ledger, rejected
from genome.layout import Home


@pytest.fixture
def zone(home: Home, monkeypatch: pytest.MonkeyPatch) -> DropZone:
    return DropZone(home, monkeypatch)


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

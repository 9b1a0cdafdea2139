"""Where there is no room, intake stops without losing a line, says why, and goes on by itself."""

from __future__ import annotations

import errno

import pytest
from drop_zone import DropZone, line, lines
from failing_os import failing

from genome import batches, files
from genome.buffer import BufferFull
from genome.errors import Busy, DiskFull
from genome.layout import Home
from genome.lines import Reader
from genome.signals import Defaults

FULL = OSError(errno.ENOSPC, "No space left on device")


def submitted(number: int) -> list[object]:
    return [Reader().line(line(number), Defaults(5))]


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_full_disk_stops_intake_without_losing_a_line(
    home: Home, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Whether no write has room or just one of them, half of which arrives; over gRPC it is Busy, and said."""
    zone = DropZone(home, monkeypatch)
    zone.put("a.jsonl", b"".join(line(i, domain=f"d{i % 2}") + b"\n" for i in range(10)) + b"nope\n")
    with failing(calls=frozenset({"write"}), error=FULL, fail_at=writes):
        again = zone.look()
        assert again is not None and 0 < again < 60
        assert "no room to write" in zone.ingest.stopped
        assert zone.told.names() == ["intake_stopped"]
        if not writes:
            zone.look()
            with pytest.raises(DiskFull):
                zone.buffer.accept(submitted(50), zone.clock.now)  # type: ignore[arg-type]
            assert zone.told.names() == [] and zone.stored() == []
    zone.look()
    assert zone.has(*range(10)) and zone.refused() == {b"nope": 1}
    assert zone.ingest.stopped == "" and zone.told.names() == ["intake_resumed"]


def test_a_full_buffer_stops_intake_until_a_batch_was_promoted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is counted when the daemon starts, too."""
    zone = DropZone(home, monkeypatch, max_waiting_mb=1)
    zone.put("a.jsonl", b"".join(line(i, session="x" * 1000) + b"\n" for i in range(1100)))
    zone.look()
    zone.put("b.jsonl", lines(2000))
    for _ in range(2):
        zone.look()
        assert "intake.max_waiting_mb" in zone.ingest.stopped and zone.has(*range(1100))
        with pytest.raises(BufferFull):
            zone.buffer.accept(submitted(3000), zone.clock.now)  # type: ignore[arg-type]
        zone.start()
    zone.look()
    batch = batches.form(home, "helper", "git", "test", zone.clock.now, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    zone.look()
    assert zone.ingest.stopped, "queued signals wait as well"
    batches.archive(home, batch)
    zone.look()
    assert zone.has(*range(1100), 2000) and not zone.ingest.stopped


def test_a_disk_that_is_nearly_full_is_left_some_room(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below intake.min_free_mb nothing is written; above it intake goes on at the next look."""
    zone = DropZone(home, monkeypatch, min_free_mb=64)
    zone.put("a.jsonl", lines(1))
    with monkeypatch.context() as patch:
        patch.setattr(files, "free_bytes", lambda directory: (64 << 20) - 1)
        zone.look()
        assert "intake.min_free_mb is 64" in zone.ingest.stopped and not zone.stored()
        with pytest.raises(Busy, match="63 MB are free"):
            zone.buffer.accept(submitted(2), zone.clock.now)  # type: ignore[arg-type]
    zone.look()
    assert zone.has(1) and not zone.ingest.stopped


def test_what_stops_over_grpc_alone_is_told_and_its_end_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file waits: the loop says what a call was told, once, and looks again until there is room."""
    zone = DropZone(home, monkeypatch, min_free_mb=64)
    zone.look()
    with monkeypatch.context() as patch:
        patch.setattr(files, "free_bytes", lambda directory: (64 << 20) - 1)
        for _ in range(2):
            with pytest.raises(Busy):
                zone.buffer.accept(submitted(2), zone.clock.now)  # type: ignore[arg-type]
            assert (again := zone.look()) is not None and 0 < again < 60
        assert zone.told.names() == ["intake_stopped"] and "min_free_mb" in zone.ingest.stopped
    zone.look()
    assert zone.told.names() == ["intake_resumed"] and zone.ingest.stopped == ""


@pytest.mark.parametrize("fail_at", range(1, 12))
def test_a_flush_of_the_ledger_that_fails_costs_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    """Each call in turn: nothing stored is forgotten or stored again, and what was stored is announced."""
    monkeypatch.setattr("genome.ledger.RUN_IDS", 4)
    zone = DropZone(home, monkeypatch)
    for start in range(0, 40, 4):
        zone.put(f"{start}.jsonl", lines(*range(start, start + 4)))
        zone.look()
    zone.put("last.jsonl", lines(*range(40, 44)))
    with failing(fail_at=fail_at, error=FULL):
        zone.look()
    zone.put("again.jsonl", lines(*range(44)))
    zone.look()
    zone.start()
    zone.put("anew.jsonl", lines(*range(44)))
    zone.look()
    assert zone.has(*range(44))

"""Compressed files in the drop zone: whole lines before any damage are taken, once, and memory stays small."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from drop_zone import SETTLE, DropZone, line, lines

from genome import rejected
from genome.layout import Home


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [("gz", gzip.compress), ("zst", zst)]


@pytest.fixture
def zone(home: Home, monkeypatch: pytest.MonkeyPatch) -> DropZone:
    return DropZone(home, monkeypatch)


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

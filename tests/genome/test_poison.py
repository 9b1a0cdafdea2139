"""Whatever is poured into the inbox: every good line is stored, every bad one refused once, and memory stays small."""

from __future__ import annotations

import json
import os
import tracemalloc
from typing import Any

import pytest
from drop_zone import DropZone, line, lines

from genome import intake, rejected
from genome.layout import Home

GOOD = b'{"type":"correction","personaId":"helper","domain":"git","input":"question %d","correctOutput":"a"%b}'
BAD: dict[str, bytes] = {
    "truncated": line(0)[:40],
    "nul": b"\0" * 50,
    "nul inside": line(0).replace(b"question", b"\0"),
    "not utf-8": line(0).replace(b"question", b"\xc3\x28"),
    "utf-16": line(0).decode().encode("utf-16-le").replace(b"\n", b""),
    "deep lists": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep input": GOOD % (0, b',"session":' + b"[" * 10_000 + b"]" * 10_000),
    "deep context": GOOD % (0, b',"context":' + b'{"k":' * 10_000 + b"1" + b"}" * 10_000),
    "infinite weight": GOOD % (0, b',"weight":1e400'),
    "infinite context": GOOD % (0, b',"context":{"k":1e400}'),
    "too many digits": GOOD % (0, b',"timestamp":' + b"9" * 5000),
    "huge weight": GOOD % (0, b',"weight":' + b"9" * 400),
    "nan": GOOD % (0, b',"weight":NaN'),
    "surrogate": GOOD % (0, b',"session":"\\ud800"'),
    "surrogate key": GOOD % (0, b',"context":{"\\udfff":1}'),
    "surrogate bytes": GOOD % (0, b',"session":"\xed\xa0\x80"'),
    "duplicate key, bad last": GOOD % (0, b',"type":"wish"'),
    "array": b"[1,2]",
    "binary": bytes(byte for byte in range(256) if byte != 10),
}
KIND: dict[str, bytes] = {
    "duplicate key, good last": b'{"type":"wish",' + (GOOD % (1001, b""))[1:],
    "many digits": GOOD % (1002, b',"timestamp":' + b"9" * 400),
    "context with many digits": GOOD % (1003, b',"context":{"k":' + b"9" * 400 + b"}"),
    "unknown keys": GOOD % (1004, b',"x":{"y":[1e400]}'),
    "all of unicode": GOOD % (1005, b',"session":' + json.dumps("\x00\x7f\u2028\U0010ffff").encode()),
}
"""Odd, and good."""


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_good_lines_between_poison_are_all_stored(home: Home, monkeypatch: pytest.MonkeyPatch, newline: bytes) -> None:
    """Every kind before and after a good line; refused is exactly what was bad, each with its line and a reason."""
    zone = DropZone(home, monkeypatch)
    poured = [*KIND.values()]
    for number, bad in enumerate(BAD.values()):
        poured += [line(number), bad]
    zone.put("a.jsonl", newline.join([*poured, line(500)]))
    for _ in range(2):
        zone.look()
        zone.start()
    assert zone.has(*range(len(BAD)), 500, *range(1001, 1006))
    found = list(rejected.read(home))
    assert [(item.raw_bytes, item.line) for item in found] == [
        (bad, poured.index(bad) + 1) for bad in BAD.values()
    ]  # fmt: skip
    assert all(item.reason for item in found)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_of_100_mb_is_refused_in_little_memory(home: Home, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    """Its neighbours are taken; of it a piece as long as the limit is kept."""
    zone = DropZone(home, monkeypatch)
    path = zone.put("a.jsonl", lines(1))
    with path.open("ab") as stream:
        for _ in range(100):
            stream.write(b"x" * (1 << 20))
        stream.write(end + (lines(2) if end else b""))
    zone.touch(path, 60)
    tracemalloc.start()
    zone.look()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20
    assert zone.has(1, 2) if end else zone.has(1)
    (refused,) = rejected.read(home)
    assert len(refused.raw_bytes) <= zone.config.intake.max_line_bytes + 1 and "longer than the limit" in refused.reason


def test_a_chunk_of_nothing_but_bad_lines_is_refused_in_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand of them cost no more each than ten would."""
    zone = DropZone(home, monkeypatch)
    zone.put("a.jsonl", b"x\n" * 100_000)
    zone.look()
    assert [found.line for found in rejected.read(home)] == list(range(1, 100_001))


def test_a_file_that_grows_while_it_is_read_loses_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two reads another half line is added: each is taken when it is whole."""
    zone = DropZone(home, monkeypatch)
    monkeypatch.setattr(intake, "CHUNK_BYTES", 1000)
    path = zone.put("a.jsonl", lines(*range(20)), age=3600)
    data = lines(*range(20, 60))
    left = [data[at : at + 77] for at in range(0, len(data), 77)]
    real = intake._blocks

    def growing(drop: Any, offset: int) -> Any:
        for block in real(drop, offset):
            yield block
            if left:
                zone.append(path, left.pop(0))

    monkeypatch.setattr(intake, "_blocks", growing)
    while left:
        zone.look(after=1)
    zone.look(after=60)
    assert zone.has(*range(60)) and not zone.refused()


@pytest.mark.timeout(3600)
def test_any_number_of_one_byte_files_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, also over a restart; the good file among them is taken."""
    zone = DropZone(home, monkeypatch)
    count = max(10_000, int(1_000_000 * float(os.environ.get("GENOME_TORTURE") or 0)))
    for number in range(count):
        descriptor = os.open(home.inbox / f"{number}.jsonl", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"x")
        os.utime(descriptor, (zone.clock.now - 60,) * 2)
        os.close(descriptor)
    zone.put("good.jsonl", lines(1))
    for _ in range(2):
        zone.look()
        assert zone.has(1) and zone.refused() == {b"x": count}
        zone.start()

"""Promise 1: nothing acknowledged is lost, nothing is stored twice, every refused line is kept with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from failing_os import failing
from fixed import NOW

from genome import batches, files, intake, pending, rejected
from genome.buffer import Buffer, Receipt
from genome.config import Intake
from genome.errors import Damaged
from genome.intake import Reading, Scan
from genome.layout import Home
from genome.lines import from_signal

LIMIT = 1 << 20
Make = Callable[..., Any]


def opened(home: Home, limit: int = LIMIT) -> Buffer:
    """A buffer as a starting daemon has it."""
    made = Buffer(home, Intake(max_line_bytes=limit))
    made.load()
    return made


def take(home: Home, into: Buffer, now: float = NOW, settle: float = 0.0) -> Receipt:
    """One scan of the drop zone."""
    total = Receipt()
    for found in intake.drops(home, Scan(now, settle)):
        settled = now - found.changed >= settle
        for chunk in Reading(found, into.taken(found.key), settled, into.limits.max_line_bytes).chunks():
            total += into.commit([chunk], now)
    return total


def test_a_dropped_line_is_stored_once(home: Home, drop: Make, correction: Make) -> None:
    """Taken at the first look, and never again: not by another look, a restart, or the same file dropped anew."""
    drop(*(correction(i) for i in range(5)))
    assert take(home, opened(home)).accepted == 5
    again = opened(home)
    drop(*(correction(i) for i in range(5)), name="again.jsonl")
    assert take(home, again).accepted == 0
    assert pending.count(home, "helper", "git").examples == 5


def test_good_lines_around_bad_ones_are_taken(home: Home, drop: Make, correction: Make) -> None:
    """Bad lines go to rejected with file, number, raw bytes and reason; a restart refuses none of them twice."""
    path = drop(correction(0), b"nope", correction(1), b"\xff", b'{"a": 1}', correction(2))
    receipt = take(home, opened(home))
    assert (receipt.accepted, receipt.rejected) == (3, 3)
    take(home, opened(home))
    found = list(rejected.read(home))
    assert [(line.line, line.raw_bytes, line.file) for line in found] == [
        (2, b"nope", str(path)), (4, b"\xff", str(path)), (5, b'{"a": 1}', str(path))
    ]  # fmt: skip
    assert all(line.reason for line in found)


def test_a_line_still_being_written_is_left_until_it_is_whole(home: Home, correction: Make) -> None:
    """Only whole lines are taken; the rest comes when its newline does, or when the file has been still."""
    path = home.inbox / "log.jsonl"
    path.write_bytes(b'{"prompt":"a","completion":"b","personaId":"p"}\n{"prompt":"c","comp')
    into = opened(home)
    assert take(home, into, now=path.stat().st_mtime, settle=10).accepted == 1
    with path.open("ab") as stream:
        stream.write(b'letion":"d","personaId":"p"}\n{"prompt":"e","completion":"f","personaId":"p"}')
    assert take(home, into, now=path.stat().st_mtime, settle=10).accepted == 1
    assert take(home, into, now=path.stat().st_mtime + 11, settle=10).accepted == 1


def test_a_line_over_the_limit_is_refused_alone(home: Home, drop: Make, correction: Make) -> None:
    """Its neighbours are taken, also where it is longer than what is read at once."""
    drop(correction(0), b'{"input": "' + b"x" * (5 << 20) + b'"}', correction(1))
    receipt = take(home, opened(home, limit=1000))
    assert (receipt.accepted, receipt.rejected) == (2, 1)


def test_the_place_names_persona_and_domain(home: Home) -> None:
    """inbox/<persona>/<domain>/ gives what the line leaves out."""
    folder = home.inbox / "cook" / "soups"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(b'{"prompt":"a","completion":"b"}\n')
    take(home, opened(home))
    assert pending.count(home, "cook", "soups").examples == 1


def test_links_pipes_and_hidden_files_are_never_opened(home: Home, tmp_path: Path) -> None:
    """Only regular files with a plain .jsonl name are data."""
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(b'{"prompt":"a","completion":"b","personaId":"p"}\n')
    (home.inbox / "link.jsonl").symlink_to(secret)
    os.mkfifo(home.inbox / "pipe.jsonl")
    (home.inbox / "dir.jsonl").mkdir()
    for name in (".hidden.jsonl", "half.jsonl.tmp", "back.jsonl~"):
        (home.inbox / name).write_bytes(secret.read_bytes())
    assert take(home, opened(home)) == Receipt()


def test_windows_line_ends_and_a_byte_order_mark_are_tolerated(home: Home) -> None:
    """CRLF and a BOM are no part of the JSON."""
    line = b'{"prompt":"%d","completion":"b","personaId":"p"}'
    (home.inbox / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line % 1 + b"\r\n\r\n" + line % 2 + b"\r\n")
    assert take(home, opened(home)).accepted == 2


@pytest.mark.parametrize("crash_before", range(1, 4))
def test_a_crash_between_two_appends_loses_and_doubles_nothing(
    home: Home, drop: Make, correction: Make, monkeypatch: pytest.MonkeyPatch, crash_before: int
) -> None:
    """A chunk goes to several domains and to rejected; dying before any of those writes is healed by starting again."""
    drop(*(correction(i, domain=f"d{i % 2}") for i in range(10)), b"nope")
    real, calls = files._append, []

    def append(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) == crash_before:
            raise KeyboardInterrupt
        return real(descriptor, data)

    monkeypatch.setattr(files, "_append", append)
    with pytest.raises(KeyboardInterrupt):
        take(home, opened(home))
    monkeypatch.setattr(files, "_append", real)
    take(home, opened(home))
    assert [pending.count(home, "helper", f"d{i}").examples for i in range(2)] == [5, 5]
    assert len(list(rejected.read(home))) == 1


def test_a_torn_last_line_is_cut_off_before_the_next_is_written(home: Home, drop: Make, correction: Make) -> None:
    """What a crash left half-written was never acknowledged, and does not spoil what follows it."""
    drop(correction(0))
    take(home, opened(home))
    segment = next(home.pending("helper", "git").glob("*.jsonl"))
    with segment.open("ab") as stream:
        stream.write(b'{"signal": {"id"')
    drop(correction(1), name="second.jsonl")
    take(home, opened(home))
    assert pending.count(home, "helper", "git").examples == 2


def test_every_signal_is_in_exactly_one_state(home: Home, drop: Make, correction: Make) -> None:
    """pending, then queued, then archived or set aside; segments follow their batch."""
    policy = batches.HeldOutPolicy(0.3, 150)
    into = opened(home)
    for round_number, end in enumerate((batches.archive, lambda home, batch: batches.set_aside(home, batch, "bad"))):
        drop(*(correction(100 * round_number + i) for i in range(10)), name=f"{round_number}.jsonl")
        take(home, into)
        batch = batches.form(home, "helper", "git", "test", NOW, policy)
        assert batch is not None and batch.signals == 10
        assert pending.count(home, "helper", "git").examples == 0
        end(home, batch)
        assert len(list(batches.signals(home, batch))) == 10
    assert list(home.pending("helper", "git").iterdir()) == []
    assert len(opened(home).ledger.recent) == 20


def test_new_signals_do_not_join_a_sealed_batch(home: Home, drop: Make, correction: Make) -> None:
    """What arrives while a batch waits stays pending for the next one."""
    into = opened(home)
    drop(correction(0), name="a.jsonl")
    take(home, into)
    batch = batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150))
    drop(correction(1), name="b.jsonl")
    take(home, into)
    assert batch is not None and [found.input for found in batches.signals(home, batch)] == ["question 0"]
    assert pending.count(home, "helper", "git").examples == 1


def test_a_crash_while_a_batch_is_archived_is_mended(home: Home, drop: Make, correction: Make) -> None:
    """The batch's rename is the act; its segments follow at the next start."""
    drop(correction(0))
    take(home, opened(home))
    batch = batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    files.move(home.queued("helper", "git") / batch.id, home.archive("helper", "git") / batch.id)
    batches.settle(home)
    assert list(home.pending("helper", "git").glob("*.jsonl")) == []
    assert len(list(batches.signals(home, batch))) == 1


def test_no_question_stands_on_both_sides_of_the_split(signal: Make) -> None:
    """Held-out questions are in no training line, also where a question was corrected twice."""
    signals = [from_signal(signal(i % 50, correctOutput=f"answer {i}")) for i in range(100)]
    chosen = batches.hold_out(signals, batches.HeldOutPolicy(0.3, 150))
    held_out = {item.question for item in signals if item.id in chosen}
    trained = {item.question for item in signals if item.id not in chosen}
    assert len(held_out) == 15 and not held_out & trained


def test_a_damaged_line_costs_itself_alone(home: Home, drop: Make, correction: Make) -> None:
    """A disk that turns a byte stops no intake: the other lines are known and counted; a batch of it is refused."""
    drop(correction(0), correction(1), b"nope")
    take(home, opened(home))
    segment = next(home.pending("helper", "git").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'{"signal"', b'{"sign\x00l"', 1))
    day = next(home.rejected.glob("*.jsonl"))
    day.write_bytes(b"{}\n" + day.read_bytes())
    drop(correction(1), correction(2), name="again.jsonl")
    receipt = take(home, opened(home))
    assert (receipt.accepted, receipt.duplicates) == (2, 2), "the damaged one's source is still there: taken anew"
    assert pending.count(home, "helper", "git").examples == 3
    with pytest.raises(Damaged, match="genome fsck"):
        batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150))


def test_ids_count_within_their_domain(home: Home, signal: Make) -> None:
    """Two applications may both number from 1."""
    lines = [from_signal(signal(number, id="1", personaId=name)) for number, name in enumerate(("a", "b"))]
    assert opened(home).accept(lines, NOW).accepted == 2
    assert opened(home).accept(lines, NOW).duplicates == 2


def test_refused_lines_that_were_removed_are_missed_by_nobody(home: Home, drop: Make) -> None:
    """rejected/ may be deleted: a ledger that points into it holds up no start and hides no new refusal."""
    into = opened(home)
    drop(*(b"nope %d" % number for number in range(20)))
    take(home, into)
    into.flush()
    for day in home.rejected.glob("*.jsonl"):
        day.unlink()
    drop(b"another", name="b.jsonl")
    take(home, opened(home))
    take(home, opened(home))
    assert [line.raw_bytes for line in rejected.read(home)] == [b"another"]


def test_a_line_whose_sync_failed_is_written_again(home: Home, signal: Make) -> None:
    """Where it could not be cut off either it can be read, and a second sync would say yes: it counts for nothing."""
    into = opened(home)
    into.accept([from_signal(signal(0))], NOW)
    with (
        failing(calls=frozenset({"fsync", "ftruncate"}), error=OSError(5, "Input/output error")),
        pytest.raises(OSError),
    ):
        into.accept([from_signal(signal(1))], NOW)
    segment = next(home.pending("helper", "git").glob("*.jsonl"))
    assert segment.read_bytes().count(b"\n") == 2, "it can be read"
    with failing() as counted:
        assert into.accept([from_signal(signal(1))], NOW).accepted == 1
    assert counted.count and segment.read_bytes().count(b"\n") == 2

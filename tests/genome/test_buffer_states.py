"""The buffer against a simple model: whatever is dropped, renamed, cut, failed or restarted, in any order."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from drop_zone import DropZone, line
from failing_os import failing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genome import batches, pending
from genome.errors import GenomeError
from genome.layout import Home
from genome.lines import Reader
from genome.signals import Defaults

DOMAINS = ("git", "sql")
KINDS = st.lists(st.sampled_from(["good", "good", "again", "bad", "blank"]), min_size=1, max_size=6)


class Crash(BaseException):
    """The process is gone."""


class Buffers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("genome.ledger.RUN_IDS", 5)
        self.folder = Path(tempfile.mkdtemp())
        self.home = Home(self.folder / "genome")
        self.home.inbox.mkdir(parents=True)
        self.zone = DropZone(self.home, self.patch)
        self.tally = pending.Tally()
        self.numbers = 0
        self.good: set[int] = set()
        self.bad: Counter[bytes] = Counter()
        self.files: list[Path] = []
        self.taken_by_batches = 0

    def teardown(self) -> None:
        self.all_is_taken()
        self.patch.undo()
        shutil.rmtree(self.folder)

    def made(self, kinds: list[str]) -> list[bytes]:
        """Lines that were never dropped before, but for those that were."""
        found = []
        for kind in kinds:
            self.numbers += 1
            number = self.numbers
            if kind == "again" and self.good:
                found.append(self.line(max(self.good)))
            elif kind == "bad":
                found.append(b"bad %d" % number)
                self.bad[found[-1]] += 1
            elif kind == "blank":
                found.append(b" ")
            else:
                self.good.add(number)
                found.append(self.line(number))
        return found

    @staticmethod
    def line(number: int) -> bytes:
        return line(number, domain=DOMAINS[number % 2])

    # What people and programs do to files

    @rule(kinds=KINDS, ended=st.booleans())
    def drop(self, kinds: list[str], ended: bool) -> None:
        self.numbers += 1
        data = b"\n".join(self.made(["good", *kinds])) + b"\n" * ended
        self.files.append(self.zone.put(f"{self.numbers}.jsonl", data, age=60.0 * ended))

    @precondition(lambda self: self.files)
    @rule(kinds=KINDS, ended=st.booleans(), which=st.integers(0))
    def grow(self, kinds: list[str], ended: bool, which: int) -> None:
        path = self.files[which % len(self.files)]
        before = b"" if path.read_bytes().endswith(b"\n") else b"\n"
        self.zone.append(path, before + b"\n".join(self.made(kinds)) + b"\n" * ended)

    @precondition(lambda self: self.files)
    @rule(kinds=KINDS, which=st.integers(0))
    def rotate(self, kinds: list[str], which: int) -> None:
        path = self.files[which % len(self.files)]
        self.numbers += 1
        self.files.append(path.rename(path.with_name(f"{self.numbers}.jsonl")))
        self.zone.put(path.name, b"\n".join([*self.made(["good", *kinds]), b""]))

    @precondition(lambda self: self.files)
    @rule(kinds=KINDS, which=st.integers(0), same_beginning=st.booleans())
    def truncate(self, kinds: list[str], which: int, same_beginning: bool) -> None:
        """What was taken is known by its id, so only what is new in it counts; bad lines in it are read again."""
        self.all_is_taken()
        path = self.files[which % len(self.files)]
        if path.exists():
            first = path.read_bytes().partition(b"\n")[0]
            kept = [first] if same_beginning and not first.startswith(b"bad") else []
            self.zone.clock.now += 1
            self.zone.rewrite(path, b"\n".join([*kept, *self.made(kinds), b""]))
            self.all_is_taken()

    @rule(which=st.integers(0))
    def link(self, which: int) -> None:
        if self.files:
            path = self.files[which % len(self.files)]
            self.numbers += 1
            made = path.with_name(f"{self.numbers}.jsonl")
            made.hardlink_to(path)
            self.files.append(made)

    @rule()
    def a_day_passes(self) -> None:
        self.all_is_taken()
        self.zone.look(after=25 * 3600)
        self.files = [path for path in self.files if path.exists()]

    # What the daemon does

    @rule()
    def look(self) -> None:
        self.zone.look()

    @rule(fail_at=st.integers(1, 25), dies=st.booleans(), enospc=st.booleans())
    def look_and_fail(self, fail_at: int, dies: bool, enospc: bool) -> None:
        error = Crash() if dies else OSError(28 if enospc else 5, "as told")
        with failing(fail_at=fail_at, error=error), suppress(Crash, OSError, GenomeError):
            self.zone.look()
        if dies:
            self.zone.start()

    @rule(kinds=KINDS, fail_at=st.integers(0, 12))
    def submit(self, kinds: list[str], fail_at: int) -> None:
        """A client that is refused tries again."""
        said = [raw for raw in self.made([kind for kind in kinds if kind in ("good", "again")]) if raw]
        taken = [Reader().line(raw, Defaults(5)) for raw in said]
        if fail_at:
            with failing(fail_at=fail_at, error=OSError(5, "as told")), suppress(OSError, GenomeError):
                self.zone.buffer.accept(taken, self.zone.clock.now)
        self.zone.buffer.accept(taken, self.zone.clock.now)

    @rule(domain=st.sampled_from(DOMAINS), fail_at=st.integers(0, 30))
    def form(self, domain: str, fail_at: int) -> None:
        waiting = pending.count(self.home, "helper", domain).examples
        policy = batches.HeldOutPolicy(0.3, 150)
        if fail_at:
            with failing(fail_at=fail_at, error=OSError(5, "as told")), suppress(OSError, GenomeError):
                batches.form(self.home, "helper", domain, "test", self.zone.clock.now, policy)
            found = waiting != pending.count(self.home, "helper", domain).examples
        else:
            batch = batches.form(self.home, "helper", domain, "test", self.zone.clock.now, policy)
            assert (batch.signals if batch else 0) == waiting
            found = batch is not None
        self.taken_by_batches += waiting if found else 0

    @rule(archived=st.booleans(), fail_at=st.integers(0, 10))
    def end_a_batch(self, archived: bool, fail_at: int) -> None:
        for batch in batches.all_queued(self.home)[:1]:
            with failing(fail_at=fail_at or 1000, error=OSError(5, "as told")), suppress(OSError):
                if archived:
                    batches.archive(self.home, batch)
                else:
                    batches.set_aside(self.home, batch, "test")
            batches.settle(self.home)

    @rule()
    def restart(self) -> None:
        self.zone.start()

    @rule()
    def all_is_taken(self) -> None:
        """Once nothing fails, every line is where it belongs, and what waits is counted right."""
        self.zone.look(after=5)
        assert self.zone.has(*self.good)
        assert self.zone.refused() == self.bad
        for count in (partial(pending.count, self.home), partial(self.tally.pending, self.home)):
            waiting = sum(count("helper", domain).examples for domain in DOMAINS)
            assert waiting == len(self.good) - self.taken_by_batches

    @invariant()
    def nothing_is_there_twice_or_unasked(self) -> None:
        stored = Counter(self.zone.stored())
        assert set(stored.values()) <= {1}
        assert set(stored) <= {f"question {number}" for number in self.good}
        assert self.zone.refused() <= self.bad


Buffers.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBuffers = Buffers.TestCase

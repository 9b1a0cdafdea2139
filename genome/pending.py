"""What waits: accepted signals that no batch has taken yet, counted for the triggers."""

from __future__ import annotations

import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from genome import batches, files, segments
from genome.layout import Home
from genome.signals import teaches

Made = tuple[int, int]
"""Inode, and of a sealed file when it was changed, in nanoseconds."""


@dataclass(frozen=True)
class Pending:
    """What waits in one persona's domain."""

    persona: str
    domain: str
    examples: int = 0
    weight: float = 0.0
    """Of the examples together."""
    evidence: int = 0
    """Signals without an answer to learn from."""
    oldest: float | None = None
    """When the first example still waiting arrived, in seconds since 1970."""

    def __add__(self, other: Pending) -> Pending:
        return replace(
            self,
            examples=self.examples + other.examples,
            weight=self.weight + other.weight,
            evidence=self.evidence + other.evidence,
            oldest=min((oldest for oldest in (self.oldest, other.oldest) if oldest is not None), default=None),
        )


class _Answer(msgspec.Struct, gc=False):
    """The little of a signal that is counted: most of a line is passed over, which makes it three times as fast."""

    type: str = ""
    correct_output: str | None = None
    weight: float = 0.0


class _Counted(msgspec.Struct, gc=False):
    signal: _Answer
    received: int


_DECODER = msgspec.json.Decoder(_Counted)


@dataclass
class Tally:
    """Counts what waits. A segment only grows, so each of its lines is read once, until a signal of it is retracted."""

    counted: dict[Path, tuple[Made, int, Pending]] = field(default_factory=dict)
    """By segment: which file it was, up to which byte it was read, and what was found."""

    def pending(self, home: Home, persona: str, domain: str) -> Pending:
        with files.locked(home.lock):
            names = batches.pending_segments(home, persona, domain)
        return self.counts(home, persona, domain, names)

    def counts(self, home: Home, persona: str, domain: str, names: list[str]) -> Pending:
        """Of segments that were pending when they were listed, under the lock: counting is long, listing is not."""
        directory, total = home.pending(persona, domain), Pending(persona, domain)
        present = {directory / name for name in names}
        for gone in [path for path in self.counted if path.parent == directory and path not in present]:
            del self.counted[gone]
        for path in sorted(present):
            nothing = Pending(persona, domain)
            known, start, found = self.counted.get(path, (None, 0, nothing))
            try:
                made, size = _made(path)
                if made != known:
                    start, found = 0, nothing
                if size > start or made != known:
                    start, found = _count(path, start, found)
                    self.counted[path] = made, start, found
            except FileNotFoundError:
                continue  # its batch just ended
            total += found
        return total


def count(home: Home, persona: str, domain: str) -> Pending:
    return Tally().pending(home, persona, domain)


def _made(path: Path) -> tuple[Made, int]:
    """Which file lies there, and its length. A retraction puts another one there, of the same length."""
    status = path.stat()
    changed = 0 if status.st_mode & stat.S_IWUSR else status.st_mtime_ns  # one that grows changes all the time
    return (status.st_ino, changed), status.st_size


def _count(path: Path, start: int, found: Pending) -> tuple[int, Pending]:
    end, examples, weight, evidence, oldest = start, found.examples, found.weight, found.evidence, found.oldest
    for position, stored in segments.scan_as(_DECODER, path, start, pass_over_damage=True):
        end = position
        if teaches(stored.signal.correct_output, stored.signal.weight):
            examples += 1
            weight += stored.signal.weight
            oldest = min(stored.received / 1000, oldest or stored.received / 1000)
        elif stored.signal.type != segments.RETRACTED:
            evidence += 1
    return end, replace(found, examples=examples, weight=weight, evidence=evidence, oldest=oldest)


def waiting_bytes(home: Home) -> int:
    """Of all segments that are pending or queued."""
    total = 0
    for persona, domain in home.domains():
        for path in home.pending(persona, domain).glob("*.jsonl"):
            with suppress(FileNotFoundError):  # its batch just ended
                total += path.stat().st_size
    return total

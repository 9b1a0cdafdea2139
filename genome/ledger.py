"""The ledger: which ids were ever accepted, and how far each dropped file was read.

    training-buffer/ledger/marks.json       what the runs cover: per domain a segment and a length, per file an offset
    training-buffer/ledger/<from>-<to>.ids  runs: sorted 128-bit hashes of ids, never changed, merged as they grow

Everything here follows from the segments; the ledger is what spares reading them all. It is written behind them: ids
wait in memory until there are `RUN_IDS`, then they become a run and the marks move. Starting reads the marks and what
the segments hold beyond them, after a clean stop as after a crash. A ledger that is damaged or gone is made anew.

Runs of equal size are merged (Bentley and Saxe's logarithmic method, 1980), so n ids lie in about log2(n / RUN_IDS)
files that are searched through a memory map: what stays in memory does not grow with history. A merge holds 24 bytes an
id for its moment.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from genome import files
from genome.errors import Damaged
from genome.layout import Home
from genome.records import Record

RUN_IDS = 1 << 16
"""Ids that wait in memory: some 8 MB, and 50 MB of segments to read again at a start."""
BLOCK_BYTES = 1 << 20
RUN = re.compile(r"(\d{8})-(\d{8})\.ids")
Hashes = npt.NDArray[np.uint64]


class Mark(BaseModel):
    """Everything up to here is in the runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment: str
    """File name; every segment of the domain with a smaller name is covered in whole."""
    bytes: int


class Marks(Record):
    """marks.json."""

    domains: dict[str, Mark] = Field(default_factory=dict)
    """By persona/domain."""
    rejected: Mark | None = None
    """The same of rejected/."""
    refused: tuple[tuple[str, int, int], ...] = ()
    """(file key, offset, xxh3) of refused lines that lie beyond their file's offset."""
    taken: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """By file key (`genome.intake.Drop.key`): offset and check of where reading goes on."""
    flushes: int = 0
    """How many were made: the newest run's number."""


def key(persona: str, domain: str, signal_id: str) -> bytes:
    """128 bits of an id, which counts within its domain: two applications may both number from 1.

    Two of 10^9 share them with a probability of 10^-21.
    """
    return xxhash.xxh3_128_digest(f"{persona}/{domain}/{signal_id}".encode())


@dataclass(frozen=True)
class Run:
    """One file of sorted hashes: n high halves, n low halves, and the xxh3 of both."""

    path: Path
    first: int
    last: int
    """Which flushes it holds."""
    high: Hashes
    low: Hashes

    def holds(self, high: Hashes, low: Hashes) -> npt.NDArray[np.bool_]:
        """Of hashes sorted by their high halves, which are here."""
        at = np.searchsorted(self.high, high)
        found = np.zeros(len(high), bool)
        candidates = np.flatnonzero((at < len(self.high)) & (self.high[np.minimum(at, len(self.high) - 1)] == high))
        for index in candidates:  # ids that are known are the exception; two with one high half hardly happen
            place = at[index]
            while place < len(self.high) and self.high[place] == high[index]:
                if self.low[place] == low[index]:
                    found[index] = True
                    break
                place += 1
        return found


@dataclass
class Ledger:
    home: Home
    recent: set[bytes] = field(default_factory=set)
    """Keys not yet in a run."""
    runs: list[Run] = field(default_factory=list)
    """Oldest first."""
    marks: Marks = field(default_factory=Marks)

    def open(self) -> None:
        """Reads marks and runs. Damaged, they are removed: then the segments are to be read from their beginning."""
        self.recent = set()
        try:
            self.marks, self.runs, merged = read(self.home)
        except Damaged:
            self.forget()
            return
        for run in merged:
            files.remove(run.path)
        files.remove_unfinished(self.home.ledger)

    def forget(self) -> None:
        """Begins anew; whoever calls it reads the segments again."""
        self.recent, self.runs, self.marks = set(), [], Marks()
        if self.home.ledger.is_dir():
            files.remove(self.home.ledger)

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of ``keys`` that were accepted before."""
        found = self.recent.intersection(keys)
        if self.runs and keys:
            high, low = _halves(keys)
            order = np.argsort(high)  # neighbours are looked for in neighbouring pages
            high, low = high[order], low[order]
            for run in self.runs:
                found.update(keys[order[index]] for index in np.flatnonzero(run.holds(high, low)))
        return found

    def add(self, keys: Iterable[bytes]) -> None:
        self.recent.update(keys)

    @property
    def full(self) -> bool:
        """Whether `flush` is due."""
        return len(self.recent) >= RUN_IDS

    def flush(self, marks: Marks) -> None:
        """Writes what waits as a run and then ``marks``: a crash between the two only means reading again."""
        if self.recent:
            self._write_run(self.runs[-1].last + 1 if self.runs else 1, *_halves(self.recent))
            self.recent = set()
        self.marks = marks.model_copy(update={"flushes": self.runs[-1].last if self.runs else 0})
        self.marks.write(self.home.ledger / "marks.json")

    def _write_run(self, number: int, high: Hashes, low: Hashes) -> None:
        kept: list[Run] = list(self.runs)
        merged: list[Run] = []  # `runs` changes only once the new one is there: writing it may fail
        while kept and len(kept[-1].high) <= len(high) + sum(len(run.high) for run in merged):
            merged.append(kept.pop())
        first = merged[-1].first if merged else number
        path = self.home.ledger / f"{first:08d}-{number:08d}.ids"
        files.write(path, _blocks([high, *(run.high for run in merged)], [low, *(run.low for run in merged)]))
        self.runs = [*kept, _open_run(path)]
        for run in merged:
            files.remove(run.path)


def read(home: Home) -> tuple[Marks, list[Run], list[Run]]:
    """Marks, runs, and the runs a crash left beside the one they were merged into. Changes nothing.

    Raises Damaged if it is not what was written. Marks come first: who writes meanwhile only adds to the runs.
    """
    try:
        marks = Marks.from_bytes((home.ledger / "marks.json").read_bytes())
    except FileNotFoundError:
        if next(home.ledger.glob("*.ids"), None) is not None:
            raise Damaged(f"{home.ledger} has no marks.json, so nobody knows what its runs cover") from None
        return Marks(), [], []
    except ValueError as error:
        raise Damaged(f"{home.ledger / 'marks.json'} cannot be read: {error}") from error
    runs, merged = _whole([_open_run(path) for path in sorted(home.ledger.glob("*.ids"))])
    _check_complete(runs, marks.flushes)
    return marks, runs, merged


def _open_run(path: Path) -> Run:
    match = RUN.fullmatch(path.name)
    size = path.stat().st_size
    if match is None or size <= 8 or size % 16 != 8 or not _as_written(path, size - 8):
        raise Damaged(f"{path} is not what was written", "It is made anew")
    mapped = np.memmap(path, dtype="<u8", mode="r", shape=(2, size // 16))
    return Run(path, int(match[1]), int(match[2]), mapped[0], mapped[1])


def _as_written(path: Path, size: int) -> bool:
    """Whether the ``size`` bytes before the digest have it. Read, not mapped: only what is searched stays in memory."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as stream:
        while size:
            block = stream.read(min(size, BLOCK_BYTES))
            digest.update(block)
            size -= len(block)
        return stream.read() == digest.digest()


def _blocks(high: list[Hashes], low: list[Hashes]) -> Iterator[bytes]:
    """A run's bytes, from unsorted parts."""
    digest = xxhash.xxh3_64()
    order = np.argsort(np.concatenate(high), kind="stable")
    for parts in (high, low):
        half = np.concatenate(parts)
        for start in range(0, len(order), BLOCK_BYTES // 8):
            block = half[order[start : start + BLOCK_BYTES // 8]].astype("<u8").tobytes()
            digest.update(block)
            yield block
        del half
    yield digest.digest()


def _halves(keys: Collection[bytes]) -> tuple[Hashes, Hashes]:
    both = np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    return both[:, 0].copy(), both[:, 1].copy()


def _whole(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Those that count, and those that lie beside the one they were merged into."""
    kept: list[Run] = []
    merged: list[Run] = []
    for run in sorted(runs, key=lambda run: (run.first, -run.last)):
        (merged if kept and run.last <= kept[-1].last else kept).append(run)
    return kept, merged


def _check_complete(runs: list[Run], flushes: int) -> None:
    """Raises Damaged if a run is missing. One more than was marked is what a crash leaves."""
    expected = 1
    for run in runs:
        if run.first != expected:
            raise Damaged(f"run {expected} of the ledger is missing")
        expected = run.last + 1
    if expected - 1 < flushes:
        raise Damaged(f"run {flushes} of the ledger is missing")

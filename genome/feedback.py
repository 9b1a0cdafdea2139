"""Feedback: what people and applications say about replies, as samples of a metric for the version that answered.

Samples are signals, so they are as durable as these and lie with them: `Feedback` reads each line of the segments once.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import msgspec

from genome import batches, files, segments
from genome.layout import Home
from genome.signals import METRIC

SATISFACTION = "user_satisfaction"
"""The metric that signals themselves give: positive is 1, mistake and correction are 0."""
OF_TYPE = {"positive": 1.0, "mistake": 0.0, "correction": 0.0}
"""What a signal says of the reply it is about. An import says nothing."""
DAY = 86_400.0
KEPT = 100_000
"""Samples of one domain; of more the newest."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One observation of a metric."""

    time: float
    """Seconds since 1970."""
    metric: str
    value: float
    """user_satisfaction: 0 or 1."""
    adapter: str = ""
    """Id of the version that answered, where it is known."""
    received: float = field(default=0.0, compare=False)
    """Seconds since 1970."""


@dataclass(frozen=True)
class Standing:
    """What is known of one version by one metric."""

    samples: int
    mean: float


class _About(msgspec.Struct, gc=False):
    id: str = ""


class _Said(msgspec.Struct, gc=False):
    """The little of a signal that is feedback: most of a line is passed over."""

    type: str
    input: str = ""
    timestamp: int = 0
    adapter: _About | None = None
    value: float | None = None


class _Line(msgspec.Struct, gc=False):
    signal: _Said
    received: int


_DECODER = msgspec.json.Decoder(_Line)


@dataclass
class _Domain:
    """What was read of one domain."""

    samples: deque[Sample]
    """In the order of arrival."""
    read: dict[str, int] = field(default_factory=dict)
    """By segment: up to which byte."""
    ended: set[str] = field(default_factory=set)
    """Segments that no longer grow and were read to their end."""
    changed: tuple[int, ...] = ()
    """When a batch last came to where ended ones lie, or left, in nanoseconds since 1970."""


@dataclass
class Feedback:
    """Samples that arrived in the ``days`` before the newest one, or the newest ``kept`` of them.

    A segment only grows, and keeps its name where it moves, so each line is read once. Not to be called under the
    home's lock, which it takes to list the segments.
    """

    home: Home
    days: float
    kept: int = KEPT
    _domains: dict[tuple[str, str], _Domain] = field(default_factory=dict)

    def samples(self, persona: str, domain: str, metric: str, since: float) -> list[Sample]:
        """Of one metric from ``since`` on (seconds since 1970), oldest first."""
        return sorted(self.arrived(persona, domain, metric, since), key=lambda sample: sample.time)

    def arrived(self, persona: str, domain: str, metric: str, since: float) -> list[Sample]:
        """The same in the order of arrival, in which what is there already never changes its place."""
        found = self._read(persona, domain).samples
        return [sample for sample in found if sample.metric == metric and sample.time >= since]

    def by_version(self, persona: str, domain: str, metric: str, since: float = 0.0) -> dict[str, Standing]:
        """By adapter id; "" are samples that name none."""
        values: dict[str, list[float]] = {}
        for sample in self.arrived(persona, domain, metric, since):
            values.setdefault(sample.adapter, []).append(sample.value)
        return {version: Standing(len(found), sum(found) / len(found)) for version, found in sorted(values.items())}

    def metrics(self, persona: str, domain: str) -> list[str]:
        """Names of the metrics there are samples of."""
        return sorted({sample.metric for sample in self._read(persona, domain).samples})

    def _read(self, persona: str, domain: str) -> _Domain:
        known = self._domains.setdefault((persona, domain), _Domain(deque(maxlen=self.kept)))
        pending = self.home.pending(persona, domain)
        with files.locked(self.home.lock):  # nothing moves from one place to the next between looking at the two
            paths = self._listed(persona, domain, known)
        # A segment ends before the next one begins: of one that did so long ago nothing is wanted.
        wanted = _days_before(paths[-1].name, self.days + 1) if paths else ""
        for path, follower in zip(paths, [*paths[1:], *paths[-1:]], strict=True):
            if path.name in known.ended or batches.order(follower.name)[0] < wanted:
                if path.parent != pending:
                    known.ended.add(path.name)
                continue
            with suppress(FileNotFoundError):  # it moved meanwhile: its lines are there at the next look
                self._take(path, known)
                if path.parent != pending:
                    known.ended.add(path.name)
        while known.samples and known.samples[0].received < known.samples[-1].received - self.days * DAY:
            known.samples.popleft()
        return known

    def _listed(self, persona: str, domain: str, known: _Domain) -> list[Path]:
        """Segments that may hold what was not read yet, oldest first. Years of archived ones cost nothing at a look."""
        ended = (self.home.archive(persona, domain), self.home.set_aside(persona, domain))
        changed = tuple(place.stat().st_mtime_ns if place.exists() else 0 for place in ended)
        pending = self.home.pending(persona, domain)
        found = [path for path in segments.listed(pending) if batches.SEGMENT.fullmatch(path.name)]
        moved = known.read.keys() - known.ended - {path.name for path in found}
        if moved or changed != known.changed:
            found = batches.all_segments(self.home, persona, domain)
        known.changed = changed
        return sorted(found, key=lambda path: batches.order(path.name))

    def _take(self, path: Path, known: _Domain) -> None:
        """Reads what was appended since the last look."""
        start = known.read.get(path.name, 0)
        with suppress(FileNotFoundError):  # compressed since: then all of it is looked through
            if path.stat().st_size <= start:
                return
        for end, line in segments.scan_as(_DECODER, path, start, pass_over_damage=True):
            known.read[path.name] = end
            if (sample := _sample(line)) is not None:
                known.samples.append(sample)


def _days_before(segment: str, days: float) -> str:
    """The day so long before the one in a segment's name."""
    return f"{date.fromisoformat(batches.order(segment)[0]) - timedelta(days=days)}"


def _sample(line: _Line) -> Sample | None:
    said = line.signal
    received = line.received / 1000
    time = said.timestamp / 1000 if said.timestamp else received
    adapter = sys.intern(said.adapter.id) if said.adapter else ""
    if said.type == METRIC:
        return Sample(time, sys.intern(said.input), said.value, adapter, received) if said.value is not None else None
    value = OF_TYPE.get(said.type)
    return None if value is None else Sample(time, SATISFACTION, value, adapter, received)

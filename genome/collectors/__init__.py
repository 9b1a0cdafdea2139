"""Collectors: training signals from what applications already have. Pure: from decoded rows to checked signals.

Whatever a collector finds passes `genome.signals.from_object`, so it is a signal or is refused with the same words as a
line in the inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from genome.collectors import dataset, peers, reactions, tools, transcripts
from genome.collectors.found import Found, Reader
from genome.signals import Defaults, Signal, from_object


@dataclass(frozen=True)
class Collector:
    """How one kind of data is read."""

    collect: Callable[[Any, Mapping[str, str]], Reader]
    """Of one row, with fields that are taken from other columns."""
    check: Callable[[Iterable[Any]], None] = lambda _: None
    """Of all rows of a file together: raises InvalidInput if they cannot be understood."""


COLLECTORS: dict[str, Collector] = {
    "transcripts": Collector(transcripts.collect),
    "reactions": Collector(reactions.collect, reactions.check),
    "tools": Collector(tools.collect),
    "peers": Collector(peers.collect),
    "dataset": Collector(dataset.collect),
}


@dataclass(frozen=True)
class Collected:
    """One signal, as intake would take it, and why it is one."""

    signal: Signal
    why: str


def collect(name: str, value: Any, defaults: Defaults, mapping: Mapping[str, str] | None = None) -> list[Collected]:
    """All signals of one row, or InvalidInput with the reason it is refused whole."""
    return checked(COLLECTORS[name].collect(value, mapping or {}), defaults)


def checked(found: Iterable[Found], defaults: Defaults) -> list[Collected]:
    """``found`` as signals of ``defaults``'s persona and domain."""
    return [Collected(from_object(one.fields, defaults), one.why) for one in found]

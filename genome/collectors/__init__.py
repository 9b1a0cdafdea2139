"""Collectors: training signals from what applications already have. Pure: from decoded rows to checked signals.

Whatever a collector finds passes `genome.signals.from_object`, so it is a signal or is refused with the same words as a
line in the inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genome.collectors import dataset, peers, reactions, tools, transcripts
from genome.collectors.found import Found, Reader, renamed
from genome.collectors.rows import Row
from genome.errors import InvalidInput
from genome.signals import Defaults, Signal, from_object


@dataclass(frozen=True)
class Collector:
    """How one kind of data is read."""

    collect: Callable[[Any, Collection[str]], Reader]
    """Of one row, and which of its fields were taken from columns that somebody named."""
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


def gather(
    name: str, rows: Sequence[Row], defaults: Defaults, mapping: Mapping[str, str] | None = None
) -> tuple[list[Collected], list[Row]]:
    """All signals of a file's rows, and the rows that were refused, each with its reason.

    InvalidInput where the file as a whole cannot be understood. ``mapping``: the column each field is taken from.
    """
    collector, named = COLLECTORS[name], mapping or {}
    rows = [_renamed(row, named) for row in rows]
    collector.check([row.value for row in rows if not row.trouble])
    collected: list[Collected] = []
    refused: list[Row] = []
    for row in rows:
        try:
            if row.trouble:
                raise InvalidInput(row.trouble)
            collected += checked(collector.collect(row.value, named), defaults)
        except InvalidInput as error:
            refused.append(replace(row, trouble=str(error)))
    return collected, refused


def checked(found: Iterable[Found], defaults: Defaults) -> list[Collected]:
    """``found`` as signals of ``defaults``'s persona and domain."""
    return [Collected(from_object(one.fields, defaults), one.why) for one in found]


def _renamed(row: Row, mapping: Mapping[str, str]) -> Row:
    if row.trouble or not isinstance(row.value, dict):
        return row
    try:
        return replace(row, value=renamed(row.value, mapping))
    except InvalidInput as error:
        return replace(row, trouble=str(error))

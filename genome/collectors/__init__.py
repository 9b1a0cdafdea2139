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
    fields: frozenset[str] = frozenset()
    """That a column may be named for."""
    understood: Callable[[Sequence[Any]], Sequence[Any]] = lambda values: values
    """All rows of a file, with what only all of them tell; raises InvalidInput if they cannot be understood."""


COLLECTORS: dict[str, Collector] = {
    "transcripts": Collector(transcripts.collect),
    "reactions": Collector(reactions.collect, reactions.FIELDS, reactions.understood),
    "tools": Collector(tools.collect),
    "peers": Collector(peers.collect, peers.FIELDS),
    "dataset": Collector(dataset.collect, dataset.FIELDS),
}


@dataclass(frozen=True)
class Collected:
    """One signal, as intake would take it, and why it is one."""

    signal: Signal
    why: str
    row: int = 0
    """Number of the row it is of."""


def gather(
    name: str, rows: Sequence[Row], defaults: Defaults, mapping: Mapping[str, str] | None = None
) -> tuple[list[Collected], list[Row]]:
    """All signals of a file's rows, and the rows that were refused, each with its reason.

    InvalidInput where the file as a whole cannot be understood. ``mapping``: the column each field is taken from.
    """
    collector, named = COLLECTORS[name], mapping or {}
    if unknown := sorted(set(named) - collector.fields):
        raise InvalidInput(f"{name} has no field {', '.join(unknown)}", f"It has {', '.join(sorted(collector.fields))}")
    rows = [_renamed(row, named) for row in rows]
    values = iter(collector.understood([row.value for row in rows if not row.trouble]))
    rows = [row if row.trouble else replace(row, value=next(values)) for row in rows]
    collected: list[Collected] = []
    refused: list[Row] = []
    for row in rows:
        try:
            if row.trouble:
                raise InvalidInput(row.trouble)
            collected += checked(collector.collect(row.value, named), defaults, row.number)
        except InvalidInput as error:
            refused.append(replace(row, trouble=str(error)))
    return collected, refused


def checked(found: Iterable[Found], defaults: Defaults, row: int = 0) -> list[Collected]:
    """``found`` as signals of ``defaults``'s persona and domain."""
    return [Collected(from_object(one.fields, defaults), one.why, row) for one in found]


def _renamed(row: Row, mapping: Mapping[str, str]) -> Row:
    if row.trouble or not isinstance(row.value, dict):
        return row
    try:
        return replace(row, value=renamed(row.value, mapping))
    except InvalidInput as error:
        return replace(row, trouble=str(error))

"""What a collector makes of what it reads, and what each kind of it weighs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genome.errors import InvalidInput

STATED = 1.0
"""The right answer in a person's own words: an edited answer, or a correction that is one by itself."""
REPLACED = 0.75
"""The answer as it was, with the one thing in it replaced that the person named: the rest was not said to be right."""
ACCEPTED = 0.5
"""The answer a person was content with after they had corrected another: right as far as they looked."""
RATED = 0.5
"""An answer a person approved by a rating."""
PRAISED = 0.25
"""An answer a person thanked for in words, which may be politeness."""
JUDGED = 0.5
"""Multiplies what a language model, and not a rule, read out of a person's words; its source is ``ai``."""


@dataclass(frozen=True)
class Found:
    """One signal before it is checked, and why it is one."""

    fields: dict[str, Any]
    why: str


Reader = Iterator[Found]
CARRIED = frozenset(("timestamp", "session"))
"""What any row may say beside what is its own."""


def text(row: Mapping[str, Any], *names: str) -> str:
    """The first of these columns that holds text; empty if none does."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def need(row: Mapping[str, Any], what: str, *names: str) -> str:
    """The same, or InvalidInput."""
    if not (found := text(row, *names)):
        raise InvalidInput(f"no {what}: one of {', '.join(names)} should hold it")
    return found


def renamed(row: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """``row`` with fields taken from the columns that ``mapping`` names; InvalidInput where a row lacks one."""
    if missing := [column for column in mapping.values() if column not in row]:
        raise InvalidInput(f"no column {', '.join(missing)}; there is {', '.join(map(str, row))}"[:300])
    taken = set(mapping.values())
    kept = {name: value for name, value in row.items() if name not in taken}
    return {**kept, **{field: row[column] for field, column in mapping.items()}}

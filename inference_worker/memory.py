"""Which adapters leave memory for a new one. Those in use never do; of the others, those on their way out go first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genome.errors import Busy


@dataclass(frozen=True)
class Held:
    """An adapter in memory."""

    id: str
    bytes: int
    in_use: bool
    """A route names it, or a lease holds it."""
    retiring: bool


def leaving(held: Sequence[Held], newcomer: str, size: int, budget: int) -> list[str]:
    """Who leaves so that ``size`` more bytes fit the budget; ``held`` has the least recently used first.

    Raises Busy where that is not enough. A budget of 0 is none.
    """
    excess = sum(each.bytes for each in held) + size - budget
    if not budget or excess <= 0:
        return []
    chosen: list[str] = []
    idle = [each for each in held if not each.in_use]
    for each in sorted(idle, key=lambda each: not each.retiring):  # stable
        if excess > 0:
            chosen.append(each.id)
            excess -= each.bytes
    if excess > 0:
        raise Busy(
            f"{newcomer} needs {_mb(size)} of memory, and of the {_mb(budget)} for adapters "
            f"{_mb(budget + excess - size)} are in use",
            "Take adapters out of routes and unload them, or raise worker.adapter_memory_mb",
        )
    return chosen


def _mb(size: int) -> str:
    return f"{size / 2**20:.1f} MB"

"""The prefix cache: what a prompt's beginning left in one row is given to another row of the same stack.

A beginning is looked for in the rows at hand and among those kept of rows that ended. It is known by its tokens and the
digests and scales of the stack that computed it, so it never reaches another version. Only the step thread comes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inference_worker.engine import Engine, Row, State, Terms

SHORTEST = 16
"""Tokens. Fewer are computed as fast as they are copied."""
MOST = 256
"""Beginnings kept; each is compared with every new prompt."""

Key = tuple[tuple[str, float], ...]
"""Digest and scale of each adapter of a stack."""


class Sequenced(Protocol):
    """Tokens on their way into a row."""

    @property
    def terms(self) -> Terms: ...
    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def row(self) -> Row | None: ...


@dataclass(frozen=True, eq=False)
class Beginning:
    """What some tokens left under some stack."""

    key: Key
    tokens: tuple[int, ...]
    state: State


class Prefixes:
    """Beginnings up to so many bytes together, the least recently used first to go. 0 bytes: none are kept."""

    def __init__(self, engine: Engine, budget_bytes: int) -> None:
        self._engine = engine
        self._budget = budget_bytes
        self._possible = engine.facts.batched
        self._kept: list[Beginning] = []
        """The least recently used first."""

    def recall(self, asked: Sequenced, others: Iterable[Sequenced]) -> int:
        """Gives an empty row the longest beginning there is of its tokens, all but the last; returns its length."""
        key, tokens = _key(asked.terms), asked.tokens[:-1]
        if not self._possible or len(tokens) < SHORTEST or asked.row is None:
            return 0
        kept, length = self._longest(key, tokens)
        source = None
        for other in others:
            if other.row is not None and other.row is not asked.row and _key(other.terms) == key:
                reached = min(shared(other.tokens, tokens), other.row.length)
                if reached > length:
                    source, length = other.row, reached
        if length < SHORTEST:
            return 0
        state = self._engine.snapshot(source, length) if source is not None else kept.state  # type: ignore[union-attr]
        self._engine.restore(asked.row, state, length)
        return length

    def awaits(self, asked: Sequenced, others: Iterable[Sequenced]) -> bool:
        """Whether another row is about to compute what this one would begin with."""
        if not self._possible:
            return False
        key, tokens = _key(asked.terms), asked.tokens[:-1]
        return any(
            other.row is not None
            and _key(other.terms) == key
            and shared(other.tokens, tokens) >= other.row.length + SHORTEST
            for other in others
        )

    def keep(self, ended: Sequenced) -> None:
        """Keeps what an ending row holds, unless most of that is kept already."""
        length = ended.row.length if ended.row is not None else 0
        if not self._possible or not self._budget or length < SHORTEST:
            return
        key, tokens = _key(ended.terms), ended.tokens[:length]
        known, reached = self._longest(key, tokens)
        if length - reached < SHORTEST:
            return
        state = self._engine.snapshot(ended.row, length)  # type: ignore[arg-type]
        if state.memory_bytes > self._budget:
            return
        if known is not None and reached == len(known.tokens):  # the new one goes on where it ended
            self._kept.remove(known)
        self._kept.append(Beginning(key, tokens, state))
        while len(self._kept) > MOST or sum(each.state.memory_bytes for each in self._kept) > self._budget:
            del self._kept[0]

    def _longest(self, key: Key, tokens: Sequence[int]) -> tuple[Beginning | None, int]:
        """The kept beginning that shares most with ``tokens``, now the latest used, and how much."""
        best, length = None, 0
        for each in self._kept:
            if each.key == key and (reached := shared(each.tokens, tokens)) > length:
                best, length = each, reached
        if best is not None:
            self._kept.remove(best)
            self._kept.append(best)
        return best, length


def shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginnings."""
    low, high = 0, min(len(left), len(right))
    while low < high:  # by halves, so that slices are compared, not tokens
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _key(terms: Terms) -> Key:
    return tuple((term.weights.digest, term.scale) for term in terms)

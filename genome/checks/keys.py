"""Sets of ids by the million, as sorted arrays of the ledger's 128-bit keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genome.ledger import Hashes, key


@dataclass(frozen=True)
class Keys:
    """Sorted, with where each stood before."""

    high: Hashes
    low: Hashes
    order: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.high)

    @property
    def distinct(self) -> int:
        return len(self) - len(self.repeated)

    @property
    def repeated(self) -> npt.NDArray[np.intp]:
        """Places of those that equal the one before them."""
        return np.flatnonzero((self.high[1:] == self.high[:-1]) & (self.low[1:] == self.low[:-1])) + 1

    def hold(self, halves: Hashes) -> npt.NDArray[np.bool_]:
        """Of each of ``halves`` [n, 2]: whether it is here."""
        found = np.zeros(len(halves), bool)
        left = np.arange(len(halves))
        at = np.searchsorted(self.high, halves[:, 0])
        while len(left):  # once, unless two keys share 64 bits
            inside = at < len(self.high)
            left, at = left[inside], at[inside]
            alike = self.high[at] == halves[left, 0]
            left, at = left[alike], at[alike]
            here = self.low[at] == halves[left, 1]
            found[left[here]] = True
            left, at = left[~here], at[~here] + 1
        return found


def halves(keys: bytes | bytearray) -> Hashes:
    """Keys one after the other → [n, 2]."""
    return np.frombuffer(keys, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def of_ids(persona: str, domain: str, ids: Iterable[str]) -> Hashes:
    return halves(b"".join(key(persona, domain, each) for each in ids))


def arranged(parts: Iterable[Hashes]) -> Keys:
    """All of ``parts`` together."""
    together = np.concatenate([np.empty((0, 2), np.uint64), *parts])
    order = np.lexsort((together[:, 1], together[:, 0]))
    return Keys(together[order, 0], together[order, 1], order)

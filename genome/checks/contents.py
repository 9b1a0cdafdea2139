"""What one segment holds, read once: the keys of its ids, how many teach, and the lines that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genome import batches, segments
from genome.checks import keys
from genome.checks.problems import BACKUP, Problem, View, torn
from genome.ledger import Hashes, Mark, key


@dataclass
class Contents:
    path: Path
    state: str
    """pending, queued, archived or set aside."""
    keys: Hashes
    """[n, 2], in the order of arrival."""
    retracted: npt.NDArray[np.bool_]
    """Of each of them, whether only a tombstone is left."""
    teaching: int
    covered: int
    """How many of them the ledger's mark says are in its runs."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Whose segment it is."""

    persona: str
    domain: str
    mark: Mark | None


def read(view: View, path: Path, state: str, place: Place, digest: Any = None) -> Contents:
    """``digest``: of the batch, fed with the ids."""
    found, covered_bytes, end = bytearray(), _covered(path, place.mark), 0
    retracted: list[bool] = []
    teaching, covered, bad = 0, 0, []
    for end, stored in segments.examine(path, thoroughly=not view.quick):
        if isinstance(stored, str):
            bad.append((end, stored))
            continue
        signal = stored.signal
        if (signal.persona_id, signal.domain) != (place.persona, place.domain):
            bad.append((end, f"it is a signal of {signal.persona_id}/{signal.domain}"))
        if digest is not None:
            digest.add(signal.id)
        found += key(place.persona, place.domain, signal.id)
        retracted.append(stored.retracted)
        teaching += signal.teaches
        covered += covered_bytes is None or end <= covered_bytes
    made = Contents(path, state, keys.halves(found), np.array(retracted, bool), teaching, covered)
    if bad:
        more = f", and {len(bad) - 1} lines more" if len(bad) > 1 else ""
        what = f"the line that ends at byte {bad[0][0]} cannot be read: {bad[0][1]}{more}"
        made.problems.append(Problem(path, what, f"Mend or remove it; the others are whole. {BACKUP}"))
    if covered_bytes is not None and covered_bytes > end:
        what = f"ends at byte {end}, and the ledger has it up to byte {covered_bytes}"
        made.problems.append(Problem(path, what, f"Signals at its end were accepted, and are lost. {BACKUP}"))
    elif state == "pending" and path.stat().st_size > end:
        made.problems.append(torn(path))
    return made


def _covered(path: Path, mark: Mark | None) -> int | None:
    """Up to which byte the ledger's runs have its ids; None: all of them."""
    if mark is None or batches.order(path.name) > batches.order(mark.segment):
        return -1
    return mark.bytes if path.name == mark.segment else None

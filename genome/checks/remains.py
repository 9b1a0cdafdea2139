"""What crashes left, records that were moved aside, and the refused lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from genome import rejected
from genome.checks.problems import BACKUP, Problem, View, rubbish, torn
from genome.files import UNFINISHED
from genome.rejected import Rejected


def check(view: View) -> Iterator[Problem]:
    for path in _everything(view):
        if path.name.startswith(UNFINISHED):
            if not view.live:  # else somebody may be making it
                yield rubbish(path, "is half-made, from a crash")
        elif ".unreadable-" in path.name and not path.name.endswith(".reason"):
            advice = f"{path.name}.reason says why. {BACKUP}; then remove both"
            yield Problem(path, "could not be read, and was moved aside", advice)


def check_rejected(view: View) -> tuple[list[Problem], int]:
    """And how many lines were refused."""
    problems: list[Problem] = []
    refused = 0
    for path in rejected.days(view.home):
        end = 0
        with path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                try:
                    _ = msgspec.json.decode(line, type=Rejected).raw_bytes
                    refused += 1
                except ValueError as error:
                    what = f"the line that ends at byte {end} cannot be read: {error}"
                    problems.append(Problem(path, what, f"Mend or remove it. {BACKUP}"))
        if not view.live and path.stat().st_size > end:
            problems.append(torn(path))
    return problems, refused


def _everything(view: View) -> Iterator[Path]:
    """All names in the home but what users drop, and what a trainer may be making."""
    home = view.home
    busy = {path.name for path in home.active_jobs.iterdir()} if home.active_jobs.is_dir() else set()
    left_alone = {home.inbox, *(home.checkpoints(job) for job in busy)}
    for folder, folders, names in os.walk(home.root):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if here / name not in left_alone)
        yield from (here / name for name in (*folders, *sorted(names)))
        folders[:] = [name for name in folders if not name.startswith(UNFINISHED)]

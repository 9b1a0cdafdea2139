"""What crashes left, records that were moved aside, the open alerts, and the refused lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from genome import rejected
from genome.alerts import OpenAlerts
from genome.checks.problems import BACKUP, Problem, View, parsed, rubbish, torn
from genome.files import UNFINISHED
from genome.rejected import Rejected, Retried

T = TypeVar("T")


def check(view: View) -> Iterator[Problem]:
    for path in _everything(view):
        if path.name.startswith(UNFINISHED):
            if not view.live:  # else somebody may be making it
                yield rubbish(path, "is half-made, from a crash")
        elif ".unreadable-" in path.name and not path.name.endswith(".reason"):
            advice = f"{path.name}.reason says why. {BACKUP}; then remove both"
            yield Problem(path, "could not be read, and was moved aside", advice)
    if view.home.open_alerts.exists() and isinstance(alerts := parsed(OpenAlerts, view.home.open_alerts), Problem):
        yield alerts


def check_rejected(view: View) -> tuple[list[Problem], int]:
    """And how many lines are refused."""
    problems: list[Problem] = []
    gone = {line.identity for line in _lines(view, view.home.retried, Retried, problems)}
    refused = (line for path in rejected.days(view.home) for line in _lines(view, path, Rejected, problems))
    return problems, sum(line.identity not in gone for line in refused)


def _lines(view: View, path: Path, kind: type[T], problems: list[Problem]) -> Iterator[T]:
    if not path.exists():
        return
    end = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                if not view.live:  # else the daemon may be writing it
                    problems.append(torn(path))
                return
            end += len(line)
            try:
                yield msgspec.json.decode(line, type=kind)
            except ValueError as error:
                what = f"the line that ends at byte {end} cannot be read: {error}"
                problems.append(Problem(path, what, f"Mend or remove it. {BACKUP}"))


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
    yield from sorted(home.inbox.rglob(f"{UNFINISHED}retry-*"))  # ours; all else there is the user's

"""`genome fsck`: whether a home is whole, found by reading all of it. Nothing is changed unless it is asked for.

It goes by what must hold whatever happened: everything that was accepted lies in exactly one place, what a record
names exists and is what it was, and what should be served can be. A repair removes what is proved to be rubbish, cuts
what was never acknowledged, moves a segment after its batch, or has the ledger made anew. It never removes a signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from genome import files, ledger
from genome.checks import batches, conservation, jobs, remains, retractions, served, triggers
from genome.checks.batches import Domain
from genome.checks.problems import ASK, Problem, View
from genome.errors import Damaged, NotFound
from genome.layout import Home
from genome.ledger import Marks, Run

MOST_REPAIRS = 5
"""Rounds of repairing: one may bring the next to light."""
MOST_READS = 3
"""How often the ledger is read where a daemon may be merging its runs, which it does without the home's lock."""


@dataclass(frozen=True)
class Report:
    problems: tuple[Problem, ...]
    """What is wrong now."""
    repaired: tuple[Problem, ...]
    """What was."""
    counts: dict[str, int]
    """Signals by state, and refused lines."""
    notes: tuple[str, ...] = ()


def check(home: Home, repair: bool = False, quick: bool = False) -> Report:
    """Looks at everything under the home's lock. To repair, no daemon may hold the home: raises Busy if one does."""
    if not home.root.is_dir():
        raise NotFound(f"there is no home at {home.root}", "Give --home, or make one: genome init")
    alone = files.locked(home.daemon_lock, "genome fsck --repair", wait=False) if repair else nullcontext()
    with alone:
        view = View(home, quick, live=not repair and files.is_held(home.daemon_lock))
        with files.locked(home.lock):
            repaired: tuple[Problem, ...] = ()
            report = _look(view)
            for _ in range(MOST_REPAIRS if repair else 0):
                mending = tuple(problem for problem in report.problems if problem.repair is not None)
                for problem in mending:
                    _mend(problem)
                repaired += mending
                report = _look(view) if mending else report
    return Report(report.problems, repaired, report.counts, report.notes)


def _mend(problem: Problem) -> None:
    if problem.repair is not None and problem.path.exists():  # it may have lain in what was removed just now
        problem.repair()


def _look(view: View) -> Report:
    problems: list[Problem] = list(remains.check(view))
    marks, runs, merged, damage = _ledger(view)
    problems += damage
    domains = [Domain(*names, marks.domains.get("/".join(names))) for names in view.home.domains()]
    for domain in domains:
        problems += batches.check(view, domain)
    accepted = conservation.check(view, domains, runs, merged)
    problems += accepted.problems
    problems += jobs.check(view)
    problems += triggers.check(view)
    notes: list[str] = []
    if accepted.unwitnessed:
        told = "are newer than the ledger, so nothing would show if more are missing; stopping the daemon writes it"
        notes.append(f"{accepted.unwitnessed} signals {told}")
    problems += served.check(view, notes)
    problems += retractions.check(view, domains, notes)
    refused, lines = remains.check_rejected(view)
    counts = {"accepted": accepted.number, **conservation.count(domains), "rejected": lines}
    return Report((*problems, *refused), (), counts, tuple(notes))


def _ledger(view: View) -> tuple[Marks, list[Run], list[Run], list[Problem]]:
    """What the ledger says, read as a starting daemon does; a damaged one is made anew by it."""
    error: Exception = Damaged("")
    for _ in range(MOST_READS if view.live else 1):
        try:
            return *ledger.read(view.home), []
        except (Damaged, FileNotFoundError) as found:  # while the daemon merges runs, one may be missed
            error = found
    what, remove = f"is damaged: {error.args[0]}", partial(files.remove, view.home.ledger)
    return Marks(), [], [], [Problem(view.home.ledger, what, f"{ASK}: it is made anew", remove)]


def lines(report: Report) -> Iterator[str]:
    """For a person: one line a problem, then the counts and the verdict."""
    for problem in report.repaired:
        yield f"{problem.path}: {problem.what}. Repaired"
    for problem in report.problems:
        yield f"{problem.path}: {problem.what}. {problem.advice}"
    yield from (f"note: {note}" for note in report.notes)
    counts = dict(report.counts)
    accepted, refused = counts.pop("accepted"), counts.pop("rejected")
    found = " + ".join(f"{number} {state}" for state, number in counts.items())
    total = sum(counts.values())
    yield f"{accepted} signals accepted {f'= {found}' if total == accepted else f'≠ {total} found: {found}'}"
    yield f"{refused} lines rejected"
    mendable = sum(problem.repairable for problem in report.problems)
    if mendable:
        yield f"{len(report.problems)} problems; {mendable} of them can be repaired: genome fsck --repair"
    elif report.problems:
        yield f"{len(report.problems)} problems"
    else:
        yield f"{len(report.repaired)} problems, all repaired" if report.repaired else "the home is whole"

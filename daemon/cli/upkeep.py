"""`genome fsck`: what keeps a home sound."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import HomeOption, JsonOption


def register(app: typer.Typer) -> None:
    """Adds these verbs at the top level."""
    app.command(epilog="Example: genome fsck --repair")(fsck)


def fsck(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is safe to mend. The daemon must be down.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out digests; read lines less closely.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Prove that a home is whole: every signal in one place, everything that is named there. Exit 0, 8 or 10."""
    from genome import fsck as checks
    from genome.errors import EXIT_CODES, EXIT_REPAIRED, Damaged

    report = checks.check(options.home_at(home), repair, quick)
    found = {
        "problems": [_said(problem) for problem in report.problems],
        "repaired": [_said(problem) for problem in report.repaired],
        "counts": report.counts,
        "notes": report.notes,
    }
    options.answer(found, json, "\n".join(checks.lines(report)))
    if report.problems:
        raise typer.Exit(EXIT_CODES[Damaged])
    if report.repaired:
        raise typer.Exit(EXIT_REPAIRED)


def _said(problem: Any) -> dict[str, Any]:
    return {"path": str(problem.path), "what": problem.what, "advice": problem.advice, "repairable": problem.repairable}

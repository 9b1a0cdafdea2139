"""`genome fsck`, `prune`: what keeps a home sound and small."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import HomeOption, JsonOption


def register(app: typer.Typer) -> None:
    """Adds these verbs at the top level."""
    app.command(epilog="Example: genome fsck --repair")(fsck)
    app.command(epilog="Example: genome prune --dry-run")(prune)


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

    report = checks.check(options.existing(home), repair, quick)
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


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Do now what the daemon does daily: remove what [prune] lets go, and compress old segments."""
    import time

    from genome import files, pruning

    at, config = options.opened(home)
    if dry_run:
        with files.locked(at.lock):
            acts = pruning.decide(pruning.look(at), config.prune, time.time())
    else:
        acts = pruning.carry_out(at, config.prune, time.time())
    verbs = {"remove": "would be removed", "compress": "would be compressed"} if dry_run else {
        "remove": "removed", "compress": "compressed"}  # fmt: skip
    said = [f"{act.path}: {verbs[act.kind]}; {act.why}" for act in acts] or ["there is nothing to do"]
    found = [{"act": act.kind, "path": str(act.path), "why": act.why} for act in acts]
    options.answer({"dry_run": dry_run, "acts": found}, json, "\n".join(said))

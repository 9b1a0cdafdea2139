"""The command line: `genome`. Parsing comes first; what a verb needs is imported when it runs.

Exit codes: 0 done · 1 unexpected · 2 wrong usage · 3 bad input, config or adapter · 4 not found · 5 conflict ·
6 busy · 7 worker or daemon unavailable · 8 damaged file · 9 quality below what was asked · 10 damage repaired ·
130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from daemon.cli import (
    adapters,
    alerts,
    buffer,
    collect,
    continuous,
    metrics,
    serving,
    signals,
    training,
    triggers,
    upkeep,
)
from genome.errors import EXIT_INTERRUPTED, GenomeError, exit_code

HELP = """A daemon that makes your own language model learn from your corrections while it keeps serving.

Exit codes: 0 done, 1 unexpected, 2 wrong usage, 3 bad input, 4 not found, 5 conflict, 6 busy,
7 worker or daemon unavailable, 8 damaged file, 9 quality below what was asked,
10 damage repaired, 130 interrupted.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
serving.register(app)
upkeep.register(app)
app.add_typer(buffer.app, name="buffer")
app.add_typer(collect.app, name="collect")
app.add_typer(signals.app, name="signal")
app.add_typer(training.app, name="training")
app.add_typer(triggers.app, name="triggers")
app.add_typer(adapters.app, name="adapter")
app.add_typer(metrics.app, name="metric")
app.add_typer(continuous.app, name="continuous")
app.add_typer(alerts.app, name="alerts")


def main() -> None:
    """Runs one verb; an expected error is one sentence on standard error and its exit code."""
    try:
        app()
    except GenomeError as error:
        print(f"genome: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)

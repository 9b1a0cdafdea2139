"""`genome continuous`: whether training goes on by itself."""

from __future__ import annotations

import typer

from daemon.cli import options
from daemon.cli.options import HomeOption, JsonOption

app = typer.Typer(help="Whether training goes on by itself.", no_args_is_help=True)


@app.command(epilog="Example: genome continuous start")
def start(home: HomeOption = None, json: JsonOption = False) -> None:
    """Let training run whenever a trigger is due."""
    from daemon import actions

    actions.resume(options.existing(home))
    options.answer({"training": "on"}, json, "training goes on")


@app.command(epilog="Example: genome continuous stop")
def stop(home: HomeOption = None, json: JsonOption = False) -> None:
    """Pause training; a running job stops at a checkpoint. Intake and serving go on."""
    from daemon import actions

    actions.pause(options.existing(home))
    options.answer({"training": "paused"}, json, "training is paused; intake and serving go on")


@app.command(epilog="Example: genome continuous status --json")
def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Whether training is on, and what each domain waits for."""
    from daemon import status as states

    at, config = options.opened(home)
    waiting = states.waiting(at, config)
    said = "paused" if at.paused.exists() else "on"
    lines = [f"training is {said}", *(f"{name}: {reason}" for name, reason in waiting.items())]
    options.answer({"training": said, "waiting": waiting}, json, "\n".join(lines))

"""`genome alerts`: what is wrong, and who was told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import HomeOption, JsonOption

app = typer.Typer(help="What is wrong, and who was told.", no_args_is_help=True)


@app.command("list", epilog="Example: genome alerts list --json")
def list_alerts(home: HomeOption = None, json: JsonOption = False) -> None:
    """The alerts that are open, and the messages that sinks have not taken yet."""
    from genome import alerts, files

    at = options.existing(home)
    with files.locked(at.lock):
        state = alerts.read(at)
    found = {
        "open": [alert.model_dump() for alert in state.open],
        "owed": [{"sinks": delivery.owed, **delivery.message()} for delivery in state.owed],
    }
    lines = [line(alert) for alert in found["open"]] or ["no alert is open"]
    lines += [f"owed to {', '.join(one['sinks'])}: {one['condition']} {one['status']}" for one in found["owed"]]
    options.answer(found, json, "\n".join(lines))


def line(alert: dict[str, Any]) -> str:
    """One alert for a person."""
    well = f", well since {_time(alert['resolved'])}" if alert["resolved"] else ""
    return f"{alert['severity']} {alert['condition']} since {_time(alert['since'])}{well}: {alert['summary']}"


def _time(millis: int) -> str:
    return f"{datetime.fromtimestamp(millis / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


@app.command(epilog="Example: genome alerts test")
def test(home: HomeOption = None, json: JsonOption = False) -> None:
    """Send a test alert to every sink now, from this process, and say what each answered. Exit 7 if one failed."""
    import time

    import anyio

    from daemon import alerts, host, sinks
    from daemon.events import Announcer
    from genome.errors import EXIT_CODES, Unavailable

    _, config = options.opened(home)
    host.configure_logging()  # the log is a sink, and goes to standard error
    answers = anyio.run(alerts.attempt, sinks.configured(config.alerts, Announcer()), time.time())
    found = [{"sink": name, "delivered": answer.delivered, "said": answer.said} for name, answer in answers.items()]
    lines = [f"{one['sink']}: {'delivered' if one['delivered'] else 'FAILED'}, {one['said']}" for one in found]
    options.answer(found, json, "\n".join(lines))
    if not all(answer.delivered for answer in answers.values()):
        raise typer.Exit(EXIT_CODES[Unavailable])


@app.command(epilog="Example: genome alerts resolve refused/helper-ai/typescript")
def resolve(
    condition: Annotated[str, typer.Argument(help="As `genome alerts list` names it.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """End an alert by hand. The daemon tells every sink; it is raised again if the condition is."""
    import time

    from daemon import alerts

    at, config = options.opened(home)
    alerts.resolve(at, config, condition, time.time())
    options.answer({"resolved": condition}, json, f"{condition} is resolved")

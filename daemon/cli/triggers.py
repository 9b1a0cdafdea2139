"""`genome triggers`: when training starts by itself, and why it has not yet."""

from __future__ import annotations

from json import dumps
from typing import Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import HomeOption, JsonOption

app = typer.Typer(help="When training starts by itself, and why it has not yet.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `explain` a verb of its own while it is the only one."""


@app.command(epilog="Example: genome triggers explain --persona helper-ai --domain typescript")
def explain(
    persona: Annotated[str, typer.Option(help="Whose triggers. Default: everybody's.")] = "",
    domain: Annotated[str, typer.Option(help="Of which subject. Default: of every one.")] = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What is due, what is missing, which settings count, and when each domain is looked at again."""
    import time

    from daemon import explanation

    found = explanation.explain(*options.opened(home), (persona, domain), time.time())
    options.answer(found, json, "\n\n".join(_text(domain) for domain in found))


def _text(found: dict[str, Any]) -> str:
    state = "starts now" if found["starts"] else "is due, and is held back"
    said = f"{state}: {found['reason']}" if found["due"] else "waits"
    lines = [f"{found['persona']}/{found['domain']} {said}"]
    lines += [f"  {'due' if each['due'] else 'not due'}  {each['reason']}" for each in found["triggers"]]
    lines += [] if found["triggers"] else [f"  {found['reason']}"]
    lines += [f"  queued: {each['batch']}{' (rebuild)' if each['rebuild'] else ''}"
              f"{', whose job ' + each['waits'] if each['waits'] else ''}" for each in found["queued"]]  # fmt: skip
    if found["paused"]:
        lines.append("  paused  no job runs until: genome continuous start")
    when = found["look_again_local"]
    lines.append(f"  looked at again  {f'at {when}, and ' if when else ''}when something new comes")
    own = [setting for setting in found["settings"] if setting["from"] != "default"]
    lines += [f"  {setting['key']} = {dumps(setting['value'])}  from {setting['from']}" for setting in own]
    return "\n".join([*lines, "  every other setting has its default" if own else "  every setting has its default"])

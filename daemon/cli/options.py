"""Options that several verbs share, and how a verb prints its answer."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genome import config as configuration
from genome.config import Config
from genome.errors import NotFound
from genome.layout import Home, default_home

if TYPE_CHECKING:
    from genome.promotions import Promotion

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Directory all state lies in. Default: $GENOME_HOME, else the user's data."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object or list instead of text.")]
PersonaOption = Annotated[str, typer.Option("--persona", help="Who speaks.")]
DomainOption = Annotated[str, typer.Option("--domain", help="The subject it learns.")]


def home_at(path: Path | None) -> Home:
    return Home((path or default_home()).expanduser().absolute())


def existing(path: Path | None) -> Home:
    """A home that somebody made; a mistyped one is not made by looking at it."""
    home = home_at(path)
    if not home.root.is_dir():
        raise NotFound(f"{home.root} does not exist", f"Run: genome init --home {home.root} --base MODEL")
    return home


def opened(path: Path | None) -> tuple[Home, Config]:
    """A home and its config, checked."""
    home = home_at(path)
    return home, configuration.load(home)


def who() -> str:
    """The user and the machine, for records of what was done by hand."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def answer(value: Any, as_json: bool, text: str) -> None:
    """Prints ``value`` for a program, or ``text`` for a person."""
    print(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


def table(columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Prints aligned columns, a row a line, on a screen and in a pipe alike: other verbs take the ids that stand in it,
    so nothing is cut off or folded."""
    cells = [columns, *(["" if cell is None else " ".join(str(cell).split()) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def check_known(home: Home, persona: str = "", domain: str = "") -> None:
    """Raises NotFound if nothing was ever taken of a persona or a domain, nor served: then it is a typing error."""
    from genome import promotions, registry

    known = set(home.domains())
    for promotion in registry.newest(home):
        known |= {(promotion.persona, promotions.line(entry.adapter)[1]) for entry in promotion.stack}
        known |= set() if promotion.stack else {(promotion.persona, "")}
    if not any(persona in ("", each) and domain in ("", of) for each, of in known):
        names = ", ".join("/".join(filter(None, place)) for place in sorted(known)) or "none yet"
        raise NotFound(f"nothing is known of {'/'.join(filter(None, (persona, domain)))}", f"Known are: {names}")


def warn_of_taints(home: Home, promotion: Promotion) -> None:
    """Says on standard error what is to be served though retracted signals are in it: it may be the only way back."""
    from genome import provenance

    taints = provenance.taints(home)
    for entry in promotion.stack:
        if retracted := taints.get(entry.adapter):
            said = f"{entry.adapter} was trained on {len(retracted)} retracted signals"
            print(f"genome: {said}. genome adapter blame {entry.adapter} names them", file=sys.stderr)

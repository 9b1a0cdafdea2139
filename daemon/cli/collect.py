"""`genome collect`: signals from what applications already have, put into the inbox."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import DomainOption, HomeOption, JsonOption, PersonaOption

if TYPE_CHECKING:
    from daemon.collecting import Harvest, Order

app = typer.Typer(help="Signals from what applications already have.", no_args_is_help=True)

FilesArgument = Annotated[list[Path], typer.Argument(help="JSONL, JSON, CSV or TSV; - reads standard input.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Write nothing; show counts and examples.")]
MapOption = Annotated[
    list[str] | None, typer.Option("--map", help="field=column: takes a field from a column of another name.")
]
ClassifyOption = Annotated[
    bool, typer.Option("--classify", help="Ask the config's endpoint about turns in which the rules found nothing.")
]


@app.command(epilog="Example: genome collect transcripts chats.jsonl --persona helper-ai --domain git --dry-run")
def transcripts(
    paths: FilesArgument,
    persona: PersonaOption,
    domain: DomainOption,
    dry_run: DryRunOption = False,
    classify: ClassifyOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Corrections, complaints and praise from chats."""
    _collect(_order("transcripts", paths, persona, domain), _Options(home, json, dry_run, classify))


@app.command(epilog="Example: genome collect reactions ratings.jsonl --persona helper-ai --domain git")
def reactions(
    paths: FilesArgument,
    persona: PersonaOption,
    domain: DomainOption,
    mapping: MapOption = None,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Thumbs, stars, emoji and edited answers."""
    _collect(_order("reactions", paths, persona, domain, mapping), _Options(home, json, dry_run))


@app.command(epilog="Example: genome collect tools runs.jsonl --persona helper-ai --domain git")
def tools(
    paths: FilesArgument,
    persona: PersonaOption,
    domain: DomainOption,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Failed tool calls, and the calls that worked instead."""
    _collect(_order("tools", paths, persona, domain), _Options(home, json, dry_run))


@app.command(epilog="Example: genome collect peers reviews.jsonl --persona helper-ai --domain git")
def peers(
    paths: FilesArgument,
    persona: PersonaOption,
    domain: DomainOption,
    mapping: MapOption = None,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What other models and agents say about answers."""
    _collect(_order("peers", paths, persona, domain, mapping), _Options(home, json, dry_run))


@app.command(epilog="Example: genome collect dataset faq.csv --map input=asked --persona helper-ai --domain git")
def dataset(
    paths: FilesArgument,
    persona: PersonaOption,
    domain: DomainOption,
    mapping: MapOption = None,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Questions with answers, from CSV, JSON and JSONL."""
    _collect(_order("dataset", paths, persona, domain, mapping), _Options(home, json, dry_run))


EXIT_REFUSED = 3
"""Something was refused; the rest was taken."""
REFUSALS = 20
"""Shown at most; --json has all."""
EXAMPLES = 3
"""Shown of each kind."""
SHOWN = 100
"""Characters shown of a text."""


@dataclass(frozen=True)
class _Options:
    home: Path | None
    json: bool
    dry_run: bool
    classify: bool = False


def _collect(order: Order, given: _Options) -> None:
    import time

    from daemon import collecting

    home, config = options.opened(given.home)
    endpoint = None
    if given.classify:
        from daemon.chat_endpoint import ChatEndpoint

        endpoint = ChatEndpoint.of(config.endpoint)
    harvest = collecting.gather(order, time.time(), config.intake, endpoint)
    found = _counted(harvest)
    said = [f"{path}:{number}: {reason}" for path, number, reason in harvest.refused[:REFUSALS]]
    if len(harvest.refused) > REFUSALS:
        said.append(f"… and {len(harvest.refused) - REFUSALS} more; --json lists all")
    if given.dry_run:
        found["examples"] = _examples(harvest)
        said += [_shown(example) for example in found["examples"]]
    elif harvest.collected:
        path, before = collecting.deliver(home, order, harvest)
        found["file"] = str(path)
        where = "lay in the inbox before" if before else "is in the inbox; the daemon takes it while it runs"
        said.append(f"{path} {where}")
    options.answer(found, given.json, "\n".join([*said, _summary(found)]))
    if harvest.refused:
        raise typer.Exit(EXIT_REFUSED)


def _counted(harvest: Harvest) -> dict[str, Any]:
    signals = [one.signal for one in harvest.collected]
    return {
        "signals": len(signals),
        "teach": sum(signal.teaches for signal in signals),
        "by_type": dict(Counter(signal.type for signal in signals)),
        "by_reason": dict(Counter(one.why for one in harvest.collected)),
        "asked": harvest.asked,
        "duplicates": harvest.duplicates,
        "silent": harvest.silent,
        "refused": [{"file": path, "row": row, "reason": reason} for path, row, reason in harvest.refused],
    }


def _examples(harvest: Harvest) -> list[dict[str, Any]]:
    shown: Counter[tuple[str, str]] = Counter()
    examples = []
    for one in harvest.collected:
        kind = (one.signal.type, one.why)
        shown[kind] += 1
        if shown[kind] <= EXAMPLES:
            examples.append({"why": one.why, **one.signal.to_json()})
    return examples


def _shown(example: dict[str, Any]) -> str:
    lines = [f"{example['type']} ({example['why']}, weight {example['weight']:g})"]
    for name, mark in (("input", "?"), ("wrong_output", "-"), ("correct_output", "+")):
        if name in example:
            lines.append(f"  {mark} {' '.join(example[name].split())[:SHOWN]}")
    return "\n".join(lines)


def _summary(found: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["by_type"].items())
    counts = f"{found['teach']} teach, {len(found['refused'])} refused"
    if found["silent"]:
        counts += f"; {found['silent']} rows said nothing"
    if found["duplicates"]:
        counts += f"; {found['duplicates']} said again what another says, and are left out"
    text = f"{found['signals']} signals{f': {kinds}' if kinds else ''}; {counts}"
    return f"{text}; the endpoint was asked about {found['asked']} turns" if found["asked"] else text


def _order(collector: str, paths: list[Path], persona: str, domain: str, given: list[str] | None = None) -> Order:
    from daemon.collecting import Order
    from genome.errors import InvalidInput

    mapping = {}
    for one in given or []:
        name, equals, column = one.partition("=")
        if not (name and equals and column):
            raise InvalidInput(f"--map {one} is not field=column")
        mapping[name] = column
    return Order(collector, paths, persona, domain, mapping)

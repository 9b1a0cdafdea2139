"""`genome buffer`: what was taken, what waits, what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from daemon.cli import options
from daemon.cli.options import DomainOption, HomeOption, JsonOption, PersonaOption

if TYPE_CHECKING:
    from genome.config import Config
    from genome.layout import Home

app = typer.Typer(help="What was taken, what waits, what was refused.", no_args_is_help=True)


@app.command(epilog="Example: genome buffer status --json")
def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Counts of every persona and domain, which batches wait or were set aside and why, and the rejected lines."""
    from daemon import status as states

    found = states.read_buffer(options.existing(home))
    if json:
        return options.answer(found, True, "")
    counts = ("pending", "evidence", "queued", "archived", "set_aside", "superseded", "retracted")
    options.table(
        ["persona", "domain", *counts],
        [[row["persona"], row["domain"], *(row[count] for count in counts)] for row in found["domains"]],
    )
    rows = [[batch["state"], batch["batch"], row["persona"], row["domain"], batch["reason"]]
            for row in found["domains"] for batch in row["batches"]]  # fmt: skip
    if rows:
        options.table(["state", "batch", "persona", "domain", "why"], rows)
    print(f"{found['rejected_lines']} rejected lines. Drop *.jsonl into {found['inbox']}")
    return None


@app.command(epilog="Example: genome buffer rejected --retry")
def rejected(
    retry: Annotated[
        bool, typer.Option("--retry", help="Give those that can be read by now to the inbox again, once.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Every refused line: its file, number and reason."""
    from genome import rejected as refused

    if retry:
        return _retry(*options.opened(home), json)
    found = list(refused.read(options.existing(home)))
    if json:
        return options.answer([msgspec.to_builtins(line) for line in found], True, "")
    for line in found:
        print(f"{line.file}:{line.line}: {line.reason}")
    print(f"{len(found)} rejected lines")
    return None


def _retry(home: Home, config: Config, json: bool) -> None:
    import time

    from genome import retry

    again = retry.retry(home, config.intake, time.time())
    said = [f"{line.file}:{line.line}: {reason}" for line, reason in again.kept]
    said += [f"{path} is in the inbox; the daemon takes it while it runs" for path in again.files]
    said.append(f"{again.lines} lines were given to the inbox again, {len(again.kept)} stay rejected")
    kept = [{**msgspec.to_builtins(line), "reason": reason} for line, reason in again.kept]
    options.answer(
        {"retried": again.lines, "files": [str(path) for path in again.files], "kept": kept}, json, "\n".join(said)
    )


@app.command(epilog="Example: genome buffer flush --persona helper-ai --domain typescript")
def flush(persona: PersonaOption, domain: DomainOption, home: HomeOption = None, json: JsonOption = False) -> None:
    """Seal what is pending into a batch now, whatever the triggers say. The daemon then trains it."""
    from daemon import actions

    batch = actions.flush(*options.opened(home), persona, domain)
    text = f"{batch.id}: {batch.signals} examples, {len(batch.held_out)} of them held out to judge by"
    options.answer({"batch": batch.id, "signals": batch.signals, "held_out": len(batch.held_out)}, json, text)


@app.command(epilog="Example: genome buffer restore batch-2026-11-20-001")
def restore(
    batch: Annotated[str, typer.Argument(help="Id of a batch that was set aside.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Let the signals of a refused batch wait again, to be trained with what comes."""
    from daemon import actions

    made = actions.restore(options.existing(home), batch)
    text = f"{made.signals} signals of {made.persona}/{made.domain} are pending again"
    options.answer({"batch": made.id, "signals": made.signals}, json, text)

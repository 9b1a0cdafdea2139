"""`genome adapter`: which versions there are, what is served, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daemon.cli import options
from daemon.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from genome.layout import Home
    from genome.promotions import Promotion
    from genome.provenance import OfAdapter

ReasonOption = Annotated[str, typer.Option(help="Why, for the history.")]

app = typer.Typer(help="Which versions there are, what is served, and the way back.", no_args_is_help=True)


@app.command("list", epilog="Example: genome adapter list --json")
def list_adapters(home: HomeOption = None, json: JsonOption = False) -> None:
    """Every adapter; a star marks what should be served, a minus what was withdrawn."""
    from genome import adapters, promotions, provenance, registry

    at = options.existing(home)
    newest = registry.newest(at)
    served = {adapter for promotion in newest for adapter in registry.served(at, promotion)}
    withdrawn = {adapter for promotion in newest
                 for adapter in promotions.quarantined(registry.history(at, promotion.persona))}  # fmt: skip
    found = [adapters.manifest(at, str(known)) for known in adapters.list_ids(at)]
    taints = provenance.taints(at)
    if json:
        marks = [{"served": made.id in served, "withdrawn": made.id in withdrawn, "tainted": taints.get(made.id, ())}
                 for made in found]  # fmt: skip
        made_so = [made.model_dump(exclude={"signals"}) for made in found]
        return options.answer([{**made, **mark} for made, mark in zip(made_so, marks, strict=True)], True, "")
    options.table(
        ["", "adapter", "parent", "job", "trainer", "digest", "tainted"],
        [["*" if made.id in served else "-" if made.id in withdrawn else "", made.id, made.parent, made.job,
          made.trainer, made.digest[:12], f"by {len(taints[made.id])}" if made.id in taints else ""] for made in found],
    )  # fmt: skip
    return None


@app.command(epilog="Example: genome adapter deploy --path ./my-lora --persona helper-ai --domain typescript")
def deploy(
    adapter: Annotated[str, typer.Argument(help="Id of an adapter of this home, e.g. helper-ai/typescript-v1.3.")] = "",
    path: Annotated[
        Path | None, typer.Option(help="Bring one in: a PEFT or mlx-lm directory, or a .safetensors file.")
    ] = None,
    persona: Annotated[str, typer.Option(help="Whose adapter the imported one is.")] = "",
    domain: Annotated[str, typer.Option(help="Which subject it is about.")] = "",
    rank: Annotated[int | None, typer.Option(help="Of a .safetensors file that does not say it.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Of a .safetensors file that does not say it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also one that was withdrawn.")] = False,
    reason: ReasonOption = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Serve an adapter from now on: one of this home by its id, or one from elsewhere with --path."""
    from daemon import actions
    from genome.errors import InvalidInput

    at, config = options.opened(home)
    if path is not None:
        wanted = actions.Import(path, adapter or None, persona, domain, rank, alpha)
        adapter = actions.import_adapter(at, config, wanted).id
    elif not adapter:
        raise InvalidInput("it is not said what to deploy", "Give an adapter's id, or --path")
    promotion = actions.deploy(at, adapter, options.who(), force, reason)
    options.warn_of_taints(at, promotion)
    text = (
        f"promotion {promotion.number} of {promotion.persona}: {adapter} is to be served; a running daemon does it now"
    )
    options.answer(promotion.model_dump(), json, text)


@app.command(epilog="Example: genome adapter export helper-ai/typescript-v1.3 --format mlx --to ./typescript-mlx")
def export(
    adapter: Annotated[str, typer.Argument(help="Id of an adapter of this home.")],
    to: Annotated[Path, typer.Option(help="The directory to write; it must not be there yet.")],
    form: Annotated[
        Literal["peft", "mlx"],
        typer.Option("--format", help="peft: as it lies here, for PEFT, vLLM and others. mlx: for mlx-lm."),
    ] = "peft",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Write an adapter out for other programs."""
    from daemon import actions

    made = actions.export_adapter(options.existing(home), adapter, form, to)
    said = {"adapter": made.id, "format": form, "path": str(to), "base": made.base}
    options.answer(said, json, f"{made.id} lies in {to}, to be used with {made.base}")


@app.command(epilog="Example: genome adapter rollback --persona helper-ai")
def rollback(
    persona: options.PersonaOption,
    to: Annotated[str, typer.Option(help="An adapter's id. Default: what was served before.")] = "",
    reason: ReasonOption = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Serve what was served before; what was withdrawn is passed over. Undo it with: genome adapter deploy ID"""
    from daemon import actions

    at = options.existing(home)
    promotion = actions.roll_back(at, persona, options.who(), to or None, reason)
    options.warn_of_taints(at, promotion)
    stack = ", ".join(entry.adapter for entry in promotion.stack) or "the base alone"
    text = f"promotion {promotion.number} of {persona}: {stack}; a running daemon does it now"
    options.answer(promotion.model_dump(), json, text)


@app.command(epilog="Example: genome adapter pin --persona helper-ai --reason 'exam week'")
def pin(
    persona: options.PersonaOption, reason: ReasonOption = "", home: HomeOption = None, json: JsonOption = False
) -> None:
    """Leave a persona as it is served now: nothing is promoted or rolled back but by hand."""
    _pin(options.existing(home), (persona, reason), True, json)


@app.command(epilog="Example: genome adapter unpin --persona helper-ai")
def unpin(
    persona: options.PersonaOption, reason: ReasonOption = "", home: HomeOption = None, json: JsonOption = False
) -> None:
    """Let a pinned persona change again."""
    _pin(options.existing(home), (persona, reason), False, json)


def _pin(home: Home, said: tuple[str, str], on: bool, json: bool) -> None:
    from daemon import actions

    persona, reason = said
    options.check_known(home, persona)
    promotion = actions.pin(home, persona, options.who(), on, reason)
    stack = ", ".join(entry.adapter for entry in promotion.stack) or "the base alone"
    text = f"promotion {promotion.number} of {persona}: {stack}, {'pinned' if on else 'free to change again'}"
    options.answer(promotion.model_dump(), json, text)


@app.command(epilog="Example: genome adapter history --persona helper-ai")
def history(persona: options.PersonaOption, home: HomeOption = None, json: JsonOption = False) -> None:
    """What a persona was served with since when: who changed it, why, and by which numbers."""
    from datetime import datetime

    from genome import registry

    at = options.existing(home)
    options.check_known(at, persona)
    found = registry.history(at, persona)
    if json:
        return options.answer([promotion.model_dump() for promotion in found], True, "")
    if not found:
        print(f"{persona} was never served with an adapter")
    for made in found:
        when = f"{datetime.fromtimestamp(made.created / 1000):%Y-%m-%d %H:%M:%S}"
        stack = ", ".join(entry.adapter for entry in made.stack) or "the base alone"
        print(
            f"{made.number:4}  {when}  {_kind(made)}{f' by {made.by}' if made.by else ''}: {stack}\n      {made.reason}"
        )
        if made.numbers:
            print("      " + ", ".join(f"{name} {value:.4g}" for name, value in made.numbers.items()))
    return None


def _kind(promotion: Promotion) -> str:
    """A canary with its share, and whether nothing but a person may change it."""
    share = f" to {promotion.share:.0%}" if promotion.is_canary else ""
    return f"{promotion.kind}{share}{', pinned' if promotion.pinned else ''}"


@app.command(epilog="Example: genome adapter blame helper-ai/typescript-v1.3")
def blame(
    adapter: Annotated[str, typer.Argument(help="Its id.")], home: HomeOption = None, json: JsonOption = False
) -> None:
    """Where a version came from: its parents, batch, job and verdict, and every signal it was trained on."""
    from genome import provenance
    from genome.adapters import origin

    at = options.existing(home)
    found = provenance.of_adapter(at, adapter)
    if json:
        return options.answer(_blamed(at, found), True, "")
    made, verdict = found.manifest, found.verdict
    print(f"adapter  {made.id}, trained on {len(made.signals)} signals")
    print(f"parents  {', '.join(found.parents) or 'none: from the base'}")
    print(f"base     {origin(made.model_dump())}")
    print(f"batch    {made.batch or '-'}, job {made.job or '-'}" + (f", from {made.origin}" if made.origin else ""))
    print(f"verdict  {'promote: ' if verdict and verdict.promote else ''}{verdict.reason if verdict else 'not kept'}")
    if found.tainted:
        print(f"tainted  by {', '.join(found.tainted)}, retracted since")
    options.table(
        ["signal", "state", "segment", "line"],
        [[each, place.state if place else "not there", place.path.relative_to(at.root) if place else None,
          place.line if place else None] for each, place in found.signals],
    )  # fmt: skip
    return None


def _blamed(home: Home, found: OfAdapter) -> dict[str, Any]:
    from genome.adapters import AdapterId

    places = [
        {"id": each, **({"state": place.state, "segment": str(place.path.relative_to(home.root)), "line": place.line}
                        if place else {"state": None})} for each, place in found.signals
    ]  # fmt: skip
    verdict = found.verdict.model_dump() if found.verdict else None
    made = {**found.manifest.model_dump(exclude={"signals"}), "version": AdapterId.parse(found.manifest.id).version}
    return {**made, "parents": found.parents, "verdict": verdict, "tainted": found.tainted, "signals": places}

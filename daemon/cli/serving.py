"""`genome init`, `run`, `daemon`, `worker`, `ask`, `demo`, `status`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import alerts, options
from daemon.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from genome.config import Config
    from genome.layout import Home
    from genome.v1.inference_pb2 import GenerateRequest, GenerateResponse


def register(app: typer.Typer) -> None:
    """Adds these verbs at the top level."""
    app.command(epilog="Example: genome init --base ~/models/SmolLM2-360M-Instruct")(init)
    app.command(epilog="Example: genome run --home ~/genome")(run)
    app.command(epilog="Example: genome daemon --home /var/lib/genome")(daemon)
    app.command(epilog="Example: genome worker --home /var/lib/genome")(worker)
    app.command(epilog='Example: genome ask "undo my last commit" --route shell-helper/git')(ask)
    app.command(epilog="Example: genome demo --json")(demo)
    app.command(epilog="Example: genome status --json")(status)


def init(
    base: Annotated[str, typer.Option(help="Local Hugging Face model directory, or a hub id.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make a home: its directories and a genome.toml with every default spelled out."""
    from genome import config

    at = options.home_at(home)
    config.init(at, base)
    text = f"{at.config} is written\nStart with: genome run --home {at.root}\nDrop corrections into {at.inbox}"
    options.answer({"home": str(at.root), "config": str(at.config), "inbox": str(at.inbox)}, json, text)


def run(home: HomeOption = None) -> None:
    """Run the worker and the daemon in this terminal until Ctrl-C; either is started again if it dies."""
    import anyio

    from daemon import host, pair

    host.configure_logging()
    anyio.run(pair.run, *options.opened(home))


def daemon(home: HomeOption = None, verbose: Annotated[bool, typer.Option("--verbose")] = False) -> None:
    """Run the supervisor: it watches, decides, trains, judges and deploys."""
    import anyio

    from daemon import host, supervisor

    host.configure_logging(verbose)
    anyio.run(supervisor.serve, *options.opened(home))


def worker(home: HomeOption = None) -> None:
    """Run the inference worker: the base model and its adapters, over gRPC."""
    at, _ = options.opened(home)
    # Another program from here on: the worker shares no memory and no imports with the daemon.
    os.execv(sys.executable, [sys.executable, "-m", "inference_worker", str(at.root)])


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    route: Annotated[str, typer.Option(help="Whom: <persona> or <persona>/<domain>. Default: the base alone.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest reply. 0: the worker's default.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    min_p: Annotated[float, typer.Option(help="Only tokens at least so likely, relative to the likeliest.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: fewer tokens that were there before.")] = 1.0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Ask the worker; the reply streams to standard output, what made it to standard error."""
    from daemon import worker_client
    from genome.signals import Turn
    from genome.v1 import inference_pb2 as pb

    at, config = options.opened(home)
    request = pb.GenerateRequest(
        route=route,
        messages=worker_client.messages([Turn(role="user", content=question)]),
        sampling=pb.Sampling(
            temperature=temperature, max_tokens=max_tokens, min_p=min_p, repetition_penalty=repetition_penalty
        ),
    )
    text, last = _stream(at, config, request, echo=not json)
    adapters = [{"id": used.id, "digest": used.digest, "scale": used.scale} for used in last.served.adapters]
    if json:
        served = {"route": last.served.route, "generation": last.served.generation, "adapters": adapters}
        return options.answer({"text": text, **served, "tokens": last.usage.completion_tokens}, True, "")
    print()
    names = ", ".join(used["id"] for used in adapters) or "the base alone"
    print(f"({names}; generation {last.served.generation})", file=sys.stderr)
    return None


def _stream(at: Home, config: Config, request: GenerateRequest, echo: bool) -> tuple[str, GenerateResponse]:
    """The whole reply and its last message; ``echo``: prints it as it comes."""
    import anyio

    from daemon import worker_client

    async def stream() -> tuple[str, GenerateResponse]:
        text = ""
        async with worker_client.connect(config, at) as client:
            async for last in client.generate(request):
                text += last.text
                if echo:
                    print(last.text, end="", flush=True)
        return text, last

    return anyio.run(stream)


def demo(
    home: Annotated[Path | None, typer.Option(help="Keep everything here. Default: a temporary directory.")] = None,
    base: Annotated[str, typer.Option(help="Base model. Default: the small one this project ships.")] = "",
    signals: Annotated[Path | None, typer.Option(help="JSONL of corrections; a tenth is held out.")] = None,
    trainer: Annotated[str, typer.Option(help="torch, mlx, unsloth or auto.")] = "torch",
    shuffle_labels: Annotated[
        bool, typer.Option("--shuffle-labels", help="Control: teach shuffled answers; the gate must refuse.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """One real turn of the loop: ask, drop corrections, train, judge, swap while serving, ask again, roll back."""
    import anyio

    from daemon.demo import circle

    settings = circle.Settings(home=home, base=base, signals=signals, trainer=trainer, shuffle_labels=shuffle_labels)
    ended_well = anyio.run(circle.run, settings, json)
    raise typer.Exit(0 if ended_well else 1)


def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """What waits, what trains, what is served, and what is wrong. Works with everything down."""
    import anyio

    from daemon import status as states

    at, config = options.opened(home)
    found = anyio.run(states.read_live, at, config)
    if json:
        return options.answer(found, True, "")
    _print_status(found)
    return None


def _print_status(found: dict[str, Any]) -> None:
    print(f"home     {found['home']}\nbase     {found['base']}")
    print(f"worker   {found['worker']['said']}\ndaemon   {found['daemon']['said']}")
    print(f"training {'paused' if found['training_paused'] else 'on'}")
    for name, trouble in found["daemon"].get("trouble", {}).items():
        print(f"trouble  {name}: {trouble['message']} ({trouble['failures']} times)")
    if stopped := found["daemon"].get("intake_stopped"):
        print(f"intake   stopped: {stopped}")
    for alert in found["alerts"]:
        print(f"alert    {alerts.line(alert)}")
    for row in found["buffer"]["domains"]:
        print(f"buffer   {row['persona']}/{row['domain']}: {row['pending']} pending, {row['queued']} queued, "
              f"{row['archived']} archived, {row['set_aside']} set aside, {row['superseded']} superseded, "
              f"{row['retracted']} retracted, {row['evidence']} evidence")  # fmt: skip
    print(f"rejected {found['buffer']['rejected_lines']} lines")
    for trouble in found["golden"]:
        print(f"golden   {trouble}")
    for job in found["jobs"]:
        print(f"job      {job['job']}: {job['state']} {job['step']}/{job['steps'] or '?'}")
    for persona in found["personas"]:
        share = f", to {persona['share']:.0%} of its sessions" if persona["share"] < 1 else ""
        pinned = ", pinned" if persona["pinned"] else ""
        print(f"served   {persona['persona']}: {', '.join(persona['stack']) or 'the base alone'}{share}{pinned}")
        for adapter, signals in persona["tainted"].items():
            print(f"tainted  {adapter}: trained on {len(signals)} retracted signals (genome adapter blame {adapter})")
    for said in found["daemon"].get("feedback", {}).values():
        print(f"feedback {said}")

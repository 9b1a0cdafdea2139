"""`genome signal`: where one signal lies, what was trained on it, and how it is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import options
from daemon.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from genome.layout import Home
    from genome.provenance import OfSignal, Place
    from genome.retraction import Outcome

app = typer.Typer(help="Where a signal lies, what was trained on it, and how it is taken back.", no_args_is_help=True)
IdArgument = Annotated[str, typer.Argument(help="Its id, or at least 8 characters it begins with.")]
Whose = Annotated[str, typer.Option("--persona", help="Where the id alone names several: whose it is.")]
About = Annotated[str, typer.Option("--domain", help="Likewise: of which subject.")]


@app.command(epilog="Example: genome signal show 3f9a1c20")
def show(
    signal: IdArgument, persona: Whose = "", domain: About = "", home: HomeOption = None, json: JsonOption = False
) -> None:
    """Where a signal lies, what became of it, and every version that goes back to it."""
    from genome import provenance

    at = options.existing(home)
    found = provenance.of_signal(at, signal, persona, domain)
    options.answer(_shown(at, found), json, "\n".join(_told(at, found)))


@app.command(epilog='Example: genome signal retract 3f9a1c20 --reason "it was another customer\'s"')
def retract(
    signal: IdArgument,
    reason: Annotated[str, typer.Option(help="Why. It is kept with the record.")],
    persona: Whose = "",
    domain: About = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take a signal back for good: its text goes, what was trained on it is marked and, if served, made again."""
    import time

    from genome import retraction

    at = options.existing(home)
    done = retraction.retract(at, signal, reason, time.time(), (persona, domain))
    made = done.retraction
    found = {
        "signal": made.signal, "persona": made.persona, "domain": made.domain, "reason": made.reason, "was": done.was,
        "adapters": done.marked, "serving": done.serving, "withdrawn_jobs": done.withdrawn,
        "rebuild": done.rebuild.id if done.rebuild else None, "superseded": done.superseded,
        "inbox": [str(path) for path in done.inbox], "waits": _waits(at, done),
    }  # fmt: skip
    options.answer(found, json, "\n".join([*_done(at, done), *found["waits"]]))


def _waits(home: Home, done: Outcome) -> list[str]:
    """What keeps that from being trained, or from being served."""
    from genome import files, registry

    persona, said = done.retraction.persona, []
    if not (done.rebuild or done.withdrawn):
        return said
    if not files.is_held(home.daemon_lock):
        said.append("no daemon runs: nothing is trained again until one does: genome run")
    if home.paused.exists():
        said.append("training is paused: nothing is trained again until: genome continuous start")
    if registry.pinned(home, persona):
        said.append(f"{persona} is pinned: nothing else is served until: genome adapter unpin --persona {persona}")
    return said


def _done(home: Home, done: Outcome) -> list[str]:
    from genome import rebuilding

    made = done.retraction
    said = [f"{made.signal} of {made.persona}/{made.domain} is retracted; it was {done.was}"]
    if done.marked:
        said.append(f"tainted  {', '.join(done.marked)}")
    said += [f"withdrawn {job}; its batch is ordered again" for job in done.withdrawn]
    if done.rebuild:
        start = done.rebuild.parent or "the base"
        said.append(f"{done.rebuild.id} trains again from {start} what the served version knew, without it")
    elif done.serving and rebuilding.serving(home, made.persona, made.domain) not in done.marked:
        said.append(
            f"{', '.join(done.serving)} is on trial as a canary; it is made again should it come to serve everybody. "
            f"End it now: genome adapter rollback --persona {made.persona}"
        )
    elif done.serving:
        said.append(f"nothing is left to rebuild from; go back: genome adapter rollback --persona {made.persona}")
    if done.superseded:
        said.append(
            f"it had superseded {', '.join(done.superseded)}, which stay so: nothing answers that question now. "
            "Drop the right answer again under another id"
        )
    kept = "in a line of its own; remove that, or intake does when the file was kept for long enough"
    said += [f"{path} still holds it, {kept}" for path in done.inbox]
    return said


def _shown(home: Home, found: OfSignal) -> dict[str, Any]:
    place, origin = found.place, found.place.stored.origin
    return {
        "id": place.id, "persona": place.persona, "domain": place.domain, "type": place.stored.signal.type,
        "state": place.state, "segment": str(place.path.relative_to(home.root)), "line": place.line,
        "received": place.stored.received, "origin": {"file": origin.name, "offset": origin.offset} if origin else None,
        "batch": place.batch.id if place.batch else None, "part": _part(found),
        "retraction": found.retraction.model_dump() if found.retraction else None, "jobs": found.jobs,
        "trained": found.trained, "descendants": found.descendants, "serving": found.serving,
    }  # fmt: skip


def _part(found: OfSignal) -> str | None:
    if found.place.batch is None or found.place.state not in ("queued", "archived", "set aside"):
        return None
    if found.held_out:
        return "held out, trained later" if found.trained else "held out"
    return "trained"


def _told(home: Home, found: OfSignal) -> list[str]:
    place, part = found.place, _part(found)
    said = [
        f"signal   {place.id} of {place.persona}/{place.domain}: {place.state}" + (f", {part}" if part else ""),
        f"lies in  {place.path.relative_to(home.root)}, line {place.line}" + _from(place),
        f"batch    {place.batch.id if place.batch else '-'}",
        f"jobs     {', '.join(found.jobs) or '-'}",
        f"versions {', '.join(found.trained) or '-'}",
    ]
    if found.descendants:
        said.append(f"and then {', '.join(found.descendants)}")
    if found.serving:
        said.append(f"served   {', '.join(found.serving)}")
    if found.retraction:
        said.append(f"retracted: {found.retraction.reason}")
    return said


def _from(place: Place) -> str:
    origin = place.stored.origin
    return f"; from {origin.name}, byte {origin.offset}" if origin else "; it came over gRPC"

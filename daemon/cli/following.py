"""Following a job from the disk, with a bar on standard error: nothing is asked of the daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from genome import batches, files, jobs
from genome.errors import Busy, Conflict, NotFound
from genome.layout import Home

EVERY_SECONDS = 0.5
UNDER_WAY = ("waiting", "training")
Rest = Callable[[float], None]
Seen = dict[str, Any] | None
"""`jobs.summary`, with the verdict's reason, and whether the job has ``ended`` and was ``withdrawn``. None: there is no
such job yet."""


def to_the_end_of_training(home: Home, job: str, rest: Rest = time.sleep) -> None:
    """Returns when the job no longer waits or trains."""
    _follow(home, job, lambda found: found is None or found["state"] not in UNDER_WAY, rest)


def to_the_verdict(home: Home, job: str, rest: Rest = time.sleep) -> dict[str, Any]:
    """The summary of the job once its verdict was carried out: promoted or refused. The daemon may not know it yet. One
    that was refused and is tried again with other settings is followed to its last attempt; one that was withdrawn, to
    the job its batch is ordered as next.

    Raises Conflict if its training failed for good, or it was withdrawn and its batch is not queued any more; Busy if
    it is held or training is paused: then nobody would come.
    """

    def ended(found: Seen) -> bool:
        if found and found["state"] == "held":
            raise Busy(f"{job} is held", f"genome training start --job {job} lets it run")
        if home.paused.exists() and (found is None or found["state"] in UNDER_WAY):
            raise Busy(f"{job} does not run while training is paused", "genome continuous start lets it")
        return found is not None and found["ended"]

    found = _follow(home, job, ended, rest)
    assert found is not None
    if (found["state"] == "refused" or found["withdrawn"]) and (following := _next(home, found)):
        return to_the_verdict(home, following, rest)
    if found["withdrawn"]:
        raise Conflict(f"{job} was withdrawn: {found['reason']}", _became(home, found["batch"]))
    if found["state"] == "failed":
        raise Conflict(f"{job} failed: {found['reason']}", f"genome training start --job {job} tries again")
    return found


def _next(home: Home, found: dict[str, Any]) -> str:
    """Id of the job its batch is to have now; empty if the batch waits for none."""
    with files.locked(home.lock):
        waits = (home.queued(found["persona"], found["domain"]) / found["batch"]).exists()
        return jobs.next_id(home, found["batch"]) if waits else ""


def _became(home: Home, batch_id: str) -> str:
    with files.locked(home.lock):
        try:
            batch = batches.find(home, batch_id)
        except NotFound:
            return "Its signals are pending again, to be trained with what comes"
        if (home.set_aside(batch.persona, batch.domain) / batch.id).exists():
            return f"{batch.id} was set aside; genome buffer status says why"
    return f"{batch.id} was promoted by another job"


def _follow(home: Home, job: str, ended: Callable[[Seen], bool], rest: Rest) -> Seen:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    # A terminal of 80 columns holds all of it: the bar takes what the rest leaves.
    text = TextColumn("{task.description} [progress.percentage]{task.fields[step]}", table_column=Column(no_wrap=True))
    facts = TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=True))
    with Progress(text, BarColumn(bar_width=None), facts, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(job, total=None, step="", facts="")
        while not ended(found := _seen(home, job)):
            if found is not None:
                why = f": {found['reason']}" if found["state"] == "waiting" and found["reason"] else ""
                said = job if found["state"] == "training" else f"{job} {found['state']}{why}"
                step = f"{found['step']}/{found['steps'] or '?'}"
                bar.update(task, total=found["steps"], completed=found["step"], description=said,
                           step=step, facts=facts_of(found))  # fmt: skip
            rest(EVERY_SECONDS)
    return found


def facts_of(found: dict[str, Any]) -> str:
    """The newest loss, real tokens a second, memory at its highest and the time left, as far as they are known."""
    facts = [
        f"loss {found['loss']:.3f}" if found["loss"] is not None else "",
        f"{found['tokens_per_second']:.0f} tok/s" if found["tokens_per_second"] is not None else "",
        f"{found['memory_mb']:.0f} MiB" if found["memory_mb"] is not None else "",
        str(timedelta(seconds=round(found["eta_seconds"]))) if found["eta_seconds"] is not None else "",
    ]
    return " ".join(filter(None, facts))


def _seen(home: Home, job: str) -> Seen:
    with files.locked(home.lock):  # the gate moves what has ended
        try:
            directory = jobs.find(home, job)
            found = {**jobs.summary(directory), "ended": directory.path.parent == home.completed_jobs}
            result = directory.result()
            found["withdrawn"] = result is not None and result.withdrawn
            if directory.verdict_file.exists() and not found["withdrawn"]:
                found["reason"] = json.loads(directory.verdict_file.read_bytes())["reason"]
            return found
        except (NotFound, FileNotFoundError):  # the runner moves what failed for good: it is found at the next look
            return None

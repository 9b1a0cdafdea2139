"""Jobs and checkpoints: every active job can go on, and nothing is kept for one that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from genome import adapters, jobs
from genome.adapters import AdapterId
from genome.checks.problems import ASK, BACKUP, Problem, View, parsed, rubbish
from genome.errors import InvalidInput
from genome.files import UNFINISHED
from genome.jobs import JobDirectory, Result
from genome.layout import Home
from genome.quality import Verdict
from genome.training import Event, Job


def check(view: View) -> Iterator[Problem]:
    """Of active and completed jobs, and their checkpoints."""
    home = view.home
    for parent in (home.active_jobs, home.completed_jobs):
        for path in _directories(parent):
            found = list(_job(view, path, active=parent == home.active_jobs))
            if path.exists():  # else the daemon moved it meanwhile, to where it is looked at next
                yield from found
    if not view.live:
        yield from _checkpoints(home)


def _job(view: View, path: Path, active: bool) -> Iterator[Problem]:
    home = view.home
    if not (path / "job.json").exists():
        yield Problem(path, "is a job without job.json", f"Remove it; its batch is ordered again. {BACKUP}")
        return
    job = parsed(Job, path / "job.json")
    result = parsed(Result, path / "result.json") if (path / "result.json").exists() else None
    verdict = parsed(Verdict, path / "verdict.json") if (path / "verdict.json").exists() else None
    yield from (found for found in (job, result, verdict) if isinstance(found, Problem))
    yield from _events(path / "events.jsonl")
    if isinstance(job, Problem) or isinstance(result, Problem):
        return
    if (home.active_jobs / path.name).exists() and (home.completed_jobs / path.name).exists():
        yield Problem(path, "is there twice, active and completed", "Remove the one that is older")
    if result is not None and result.adapter and not (home.adapter(result.adapter) / "manifest.json").exists():
        if active:
            what = f"names the candidate {result.adapter}, which is not there"
            yield Problem(path / "result.json", what, f"Remove it, and the job is trained again. {BACKUP}")
        elif _newest(home, result.adapter):
            what = f"names {result.adapter}, the newest of its domain, which is not there: its number is given again"
            yield Problem(path / "result.json", what, BACKUP)
    if active:
        yield from _active(view, path, job, result)


def _active(view: View, path: Path, job: Job, result: Result | None) -> Iterator[Problem]:
    home = view.home
    if result is not None and result.adapter is None:
        if not view.live:
            directory = JobDirectory(path)
            yield Problem(path, "failed, and still lies among the active", ASK, partial(jobs.complete, home, directory))
        return
    places = (home.queued, home.archive, home.set_aside)
    where = [place(job.persona, job.domain) / job.batch / "batch.json" for place in places]
    judged = (path / "verdict.json").exists()
    if not any(record.exists() for record in where) and not judged:  # judged, its signals may wait for more already
        yield Problem(path, f"trains {job.batch}, which does not exist", BACKUP)
    elif not where[0].exists() and not judged and not job.part:  # with a verdict the gate ends it
        yield Problem(path, f"trains {job.batch}, which has ended", "Move the job to training-jobs/completed")
    if result is None and not (path / "train.jsonl").exists():
        yield Problem(path / "train.jsonl", "is missing", f"The job cannot be trained. {BACKUP}")
    for wanted in job.needs:
        if not (home.adapter(wanted) / "manifest.json").exists():
            how = "goes on from" if wanted == job.parent else "trains beside"
            yield Problem(path, f"{how} {wanted}, which is not there", BACKUP)


def _events(path: Path) -> Iterator[Problem]:
    """A torn last line is passed over by whoever reads it, and cut by the next that is written."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        try:
            Event.model_validate_json(line)
        except ValueError:
            yield Problem(path, f"line {number} is no event", "Remove that line")
            return


def _checkpoints(home: Home) -> Iterator[Problem]:
    for path in _directories(home.checkpoints("x").parent):
        active, completed = home.active_jobs / path.name, home.completed_jobs / path.name
        job = active if active.exists() else completed
        result = parsed(Result, job / "result.json") if (job / "result.json").exists() else None
        if not job.exists():
            yield rubbish(path, "are checkpoints of no job")
        elif isinstance(result, Result) and result.adapter:
            yield rubbish(path, "are checkpoints of a job whose adapter is in place")


def _newest(home: Home, adapter_id: str) -> bool:
    """Whether no version of its domain is newer."""
    try:
        wanted = AdapterId.parse(adapter_id)
    except InvalidInput:
        return False
    return all(known < wanted for known in adapters.list_ids(home, wanted.persona) if known.domain == wanted.domain)


def _directories(parent: Path) -> list[Path]:
    found = sorted(parent.iterdir()) if parent.is_dir() else []
    return [path for path in found if path.is_dir() and not path.name.startswith(UNFINISHED)]

"""Pruning: what a home no longer needs, and why it may go. Signals never do; their segments are compressed.

`look` gathers the facts, `decide` is a pure function of them, and `carry_out` does what it says. An adapter stays while
it is among its domain's newest, is or was served within `prune.rollback_days`, would be served after a rollback, or
a job is at work with it. The newest of a domain stays whatever happened to it: its number would be given again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from genome import adapters, batches, files, jobs, promotions, registry, rehearsals, segments
from genome.adapters import AdapterId, Manifest
from genome.batches import Batch
from genome.config import Prune
from genome.jobs import JobDirectory, State
from genome.layout import Home
from genome.promotions import Promotion
from genome.quality import Verdict

DAY = 86_400.0


@dataclass(frozen=True)
class EndedJob:
    """A completed job."""

    path: Path
    state: State
    ended: float
    """Seconds since 1970."""
    waits: bool
    """Whether its batch is still queued, so that it may be tried again, or is searched for what broke the gate."""
    examples: bool
    """Whether train.jsonl is there."""


@dataclass(frozen=True)
class Facts:
    """What lies in a home, as far as pruning asks."""

    jobs: tuple[EndedJob, ...] = ()
    active: frozenset[str] = frozenset()
    """Ids of active jobs."""
    checkpoints: tuple[Path, ...] = ()
    adapters: tuple[tuple[AdapterId, Path, float], ...] = ()
    """(id, directory, seconds since 1970 when it was made)."""
    needed: frozenset[str] = frozenset()
    """Ids of adapters that active jobs go on from, train beside, or made."""
    promotions: tuple[tuple[Promotion, ...], ...] = ()
    """Of every persona, oldest first."""
    rehearsals: tuple[Path, ...] = ()
    """Of stacks that serve nobody any more."""
    segments: tuple[tuple[Path, float], ...] = ()
    """Of ended batches, not compressed: (path, seconds since 1970 when the batch was formed)."""


@dataclass(frozen=True)
class Act:
    """One thing that may be done."""

    kind: Literal["remove", "compress"]
    path: Path
    why: str


def decide(facts: Facts, policy: Prune, now: float) -> list[Act]:
    """What may go, and what may be compressed."""
    return [
        *_jobs(facts, policy, now),
        *_checkpoints(facts, policy, now),
        *_adapters(facts, policy, now),
        *(Act("remove", path, "its stack no longer serves") for path in facts.rehearsals),
        *(
            Act("compress", path, f"its batch was formed over {policy.compress_archive_days:g} days ago")
            for path, formed in facts.segments
            if formed <= now - policy.compress_archive_days * DAY
        ),
    ]


def carry_out(home: Home, policy: Prune, now: float) -> list[Act]:
    """Does what `decide` says; returns what was done."""
    with files.locked(home.lock):
        acts = decide(look(home), policy, now)
        for act in acts:
            if act.kind == "remove":
                _keep_manifest(home, act.path)
                files.remove(act.path)
    # Compressing may take a while, so intake is not kept waiting for it; only the last act needs the lock.
    return [act for act in acts if act.kind == "remove" or _compress(home, act.path)]


def _keep_manifest(home: Home, path: Path) -> None:
    """What a pruned version was trained on stays known: its descendants were, too."""
    manifest = path / "manifest.json"
    if path.is_relative_to(home.adapters) and manifest.exists():
        files.write(home.lineage(Manifest.read(manifest).id), manifest.read_bytes())


def look(home: Home) -> Facts:
    """The facts. Call under the home's lock."""
    # In this order: a job may end meanwhile, and is then found among the completed.
    place = home.checkpoints("x").parent
    checkpoints = tuple(sorted(path for path in place.iterdir() if path.is_dir())) if place.is_dir() else ()
    active = jobs.active(home)
    queued = batches.all_queued(home)
    waiting = {batch.id for batch in (*queued, *_searched(home))}
    made = [(known, adapters.manifest(home, str(known))) for known in adapters.list_ids(home)]
    ids = frozenset(directory.id for directory in active)
    needed = {manifest.id for _, manifest in made if manifest.job in ids}
    needed |= {batch.parent for batch in queued if batch.parent}
    needed |= {wanted for directory in active for wanted in directory.job().needs}
    personas = sorted({promotion.persona for promotion in registry.newest(home)})
    return Facts(
        jobs=tuple(_ended(directory, waiting) for directory in jobs.completed(home)),
        active=ids,
        checkpoints=checkpoints,
        adapters=tuple((known, home.adapter(str(known)), manifest.created / 1000) for known, manifest in made),
        needed=frozenset(needed),
        promotions=tuple(tuple(registry.history(home, persona)) for persona in personas),
        rehearsals=tuple(rehearsals.stale(home)),
        segments=tuple(_plain_segments(home)),
    )


def _searched(home: Home) -> Iterator[Batch]:
    """Refused batches that are searched for what broke the gate."""
    for persona, domain in home.domains():
        for batch in batches.set_aside_batches(home, persona, domain):
            if home.search(persona, domain, batch.id).exists():
                yield batch


def _ended(directory: JobDirectory, waiting: set[str]) -> EndedJob:
    job, events = directory.job(), directory.events()
    ended = events[-1].time if events else job.created / 1000
    if directory.verdict_file.exists():
        ended = Verdict.read(directory.verdict_file).created / 1000
    return EndedJob(directory.path, directory.state(), ended, job.batch in waiting, directory.examples.exists())


def _plain_segments(home: Home) -> Iterator[tuple[Path, float]]:
    for persona, domain in home.domains():
        ended = [(home.archive, batch) for batch in batches.archived(home, persona, domain)]
        ended += [(home.set_aside, batch) for batch in batches.set_aside_batches(home, persona, domain)]
        for place, batch in ended:
            for name in batch.segments:
                path = place(persona, domain) / batch.id / name
                if path.exists():
                    yield path, batch.created / 1000


def _compress(home: Home, path: Path) -> bool:
    """False if another process was faster."""
    try:
        file = path.stat().st_ino
        segments.pack(path)
        with files.locked(home.lock):
            if path.stat().st_ino != file:  # a signal was retracted meanwhile, and what was packed holds its text
                files.remove(segments.packed(path))
                return False
            segments.shed(path)
    except FileNotFoundError:
        return False
    return True


def _jobs(facts: Facts, policy: Prune, now: float) -> Iterator[Act]:
    for job in facts.jobs:
        if job.waits:
            continue  # removed, it would be ordered again: attempts and probes are counted by the jobs that are there
        if job.ended <= now - policy.completed_jobs_days * DAY:
            yield Act("remove", job.path, f"the job ended over {policy.completed_jobs_days:g} days ago")
        elif job.examples and job.state != "failed" and job.ended <= now - policy.job_examples_days * DAY:
            why = f"the job ended over {policy.job_examples_days:g} days ago; its signals lie with its batch"
            yield Act("remove", job.path / "train.jsonl", why)


def _checkpoints(facts: Facts, policy: Prune, now: float) -> Iterator[Act]:
    ended = {job.path.name: job for job in facts.jobs}
    for path in facts.checkpoints:
        job = ended.get(path.name)
        if path.name in facts.active:
            continue
        if job is None:
            yield Act("remove", path, "there is no such job")
        elif job.state != "failed":
            yield Act("remove", path, f"the job's adapter was {job.state}")
        elif job.ended <= now - policy.checkpoints_days * DAY:
            yield Act("remove", path, f"the job failed over {policy.checkpoints_days:g} days ago")


def _adapters(facts: Facts, policy: Prune, now: float) -> Iterator[Act]:
    since = now - policy.rollback_days * DAY
    kept = facts.needed | {adapter for history in facts.promotions for adapter in _reachable(history, since)}
    lines = groupby(sorted(facts.adapters), key=lambda made: (made[0].persona, made[0].domain))
    for _, versions in lines:
        for known, path, created in list(versions)[: -policy.adapters_kept]:
            if str(known) not in kept and created <= since:
                unserved = f"it was not served for {policy.rollback_days:g} days"
                yield Act("remove", path, f"{policy.adapters_kept} versions are newer, and {unserved}")


def _reachable(history: tuple[Promotion, ...], since: float) -> set[str]:
    """Adapters that are served, were so after ``since``, or would be after a rollback."""
    numbered = {promotion.number: promotion for promotion in history}
    # Each was served until the next was made.
    ended = [after.created / 1000 for after in history[1:]]
    served = [promotion for promotion, until in zip(history, ended, strict=False) if until >= since]
    served.append(history[-1])
    others = [numbered.get(promotion.builds_on) for promotion in served if promotion.is_canary]
    before = [promotions.way_back(history), *others]
    return {adapter for promotion in (*served, *before) if promotion is not None for adapter in promotion.adapters}

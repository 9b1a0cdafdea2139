"""Retraction: a signal is taken back. Its text goes, and what was trained on it is marked and made again.

The record in retracting/ is the act; everything after it follows, in this order, and each step can be done again:
a tombstone takes the line's place, jobs that train on it are withdrawn and their examples scrubbed, a rebuild is queued
where a served version goes back to it, and the record moves to retracted/. `settle` ends what a crash interrupted.

A withdrawn job ends as failed, and its batch, which stays queued, is ordered again under a new id.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from genome import batches, dropped, files, jobs, provenance, rebuilding, registry, rehearsals, rejected, tombstones
from genome.batches import Batch
from genome.errors import Conflict, Damaged, InvalidInput
from genome.jobs import JobDirectory, Result
from genome.layout import Home
from genome.promotions import Stack
from genome.tombstones import Retraction

WITHDRAWN = "a signal was retracted"
"""Why a job was withdrawn."""


@dataclass(frozen=True)
class Outcome:
    """What a retraction did."""

    retraction: Retraction
    marked: tuple[str, ...]
    """Versions that were trained on it, or descend from one that was."""
    serving: tuple[str, ...]
    """Those of them that should be served now, until a rebuild takes their place."""
    withdrawn: tuple[str, ...]
    """Jobs whose batches are ordered again."""
    rebuild: Batch | None
    """Queued because of it."""
    was: provenance.State = "retracted"
    """The signal's state before."""
    superseded: tuple[str, ...] = ()
    """Ids of signals that lost against it: they stay so, and nothing else answers that question."""
    inbox: tuple[Path, ...] = ()
    """Dropped files that still hold its text."""


def retract(home: Home, signal_id: str, reason: str, now: float, place: tuple[str, str] = ("", "")) -> Outcome:
    """Takes a signal back for good. Doing it again ends what was interrupted, and keeps the first reason.

    ``place``: persona and domain, where the id alone names several. Works with the daemon up or down.
    """
    if not reason.strip():
        raise InvalidInput("it is not said why the signal is retracted", "Give --reason; it is kept with the record")
    with files.locked(home.lock):
        found = provenance.find(home, signal_id, *place)
        names = found.persona, found.domain
        retraction = tombstones.find(home, *names, found.id)
        if retraction is None:
            batch = found.batch.id if found.batch else None
            retraction = Retraction(signal=found.id, persona=names[0], domain=names[1], reason=reason.strip(),
                                    batch=batch, created=int(now * 1000))  # fmt: skip
            tombstones.put(home, retraction)
        beaten = provenance.superseded_by(home, found)
        outcome = replace(_carry_out(home, retraction, now), was=found.state, superseded=beaten)
    return replace(outcome, inbox=tuple(dropped.holding(home, names, found.id, now)))


def settle(home: Home, now: float) -> None:
    """Ends every retraction that was interrupted. Under the home's lock.

    One that a damaged file keeps from its end is left: `genome fsck` names both, and nothing else has to wait for it.
    A rebuild is queued as well where what serves everybody is tainted and none waits: a canary became that, or somebody
    deployed it. Not again where the gate refused the same one.
    """
    for names in home.domains():
        _end_interrupted(home, names, now)
        with suppress(Damaged, Conflict):
            taints, served = provenance.taints(home), rebuilding.serving(home, *names)
            if served in taints and not rebuilding.standing(home, *names) and not _refused(home, names):
                rebuilding.queue(home, *names, rebuilding.because_of(taints[served][0]), now)


def _end_interrupted(home: Home, names: tuple[str, str], now: float) -> None:
    for retraction in tombstones.unfinished(home, *names):
        with suppress(Damaged):
            _carry_out(home, retraction, now)


def _refused(home: Home, names: tuple[str, str]) -> bool:
    """Whether the rebuild that is wanted now was tried, and the gate refused it."""
    wanted = rebuilding.plan(home, *names)
    tried = (old for old in batches.set_aside_batches(home, *names) if wanted.is_of(old))
    return any(jobs.refused(home, old.id) for old in tried)


def _carry_out(home: Home, retraction: Retraction, now: float) -> Outcome:
    persona, domain, signal_id = retraction.persona, retraction.domain, retraction.signal
    for path in batches.all_segments(home, persona, domain):
        tombstones.bury(path, signal_id)
    trained, descendants = provenance.holders(provenance.versions(home), persona, domain, signal_id)
    marked = (*trained, *descendants)
    _end_promoted(home, persona, domain)
    serving = tuple(each for each in marked if each in provenance.serving(home))
    # Of a canary there is none: it may yet go, and `settle` queues one should it come to serve everybody.
    rebuilt = rebuilding.serving(home, persona, domain) in marked
    withdrawn = tuple(_withdraw_jobs(home, retraction, rebuilt))
    _scrub(home, retraction)
    if marked:
        rehearsals.forget(home, persona)
    _set_aside_empty(home, retraction)
    rebuild = None
    if rebuilt or any(old.parent in marked for old in rebuilding.standing(home, persona, domain)):
        with suppress(Conflict):  # there is nothing to go on from: a rollback is left
            rebuild = rebuilding.queue(home, persona, domain, rebuilding.because_of(signal_id), now)
    rejected.blank(home, persona, domain, signal_id)
    tombstones.carried_out(home, retraction)
    return Outcome(retraction, marked, serving, withdrawn, rebuild)


def _withdraw_jobs(home: Home, retraction: Retraction, rebuilt: bool) -> Iterator[str]:
    """Active jobs that train on the signal. With a rebuild also the domain's others: it would lack what they teach."""
    names = retraction.persona, retraction.domain
    wanted = rebuilding.plan(home, *names)
    spared = {batch.id for batch in rebuilding.standing(home, *names) if wanted.is_of(batch)}
    for directory in jobs.active(home):
        job = directory.job()
        if (job.persona, job.domain) != names:
            continue
        stale = provenance.trains_on(directory, retraction.signal, names) and not _scrubbing_will_do(home, directory)
        if (stale or (rebuilt and not job.part and job.batch not in spared)) and _may_withdraw(home, directory):
            withdraw(home, directory)
            yield directory.id


def _scrubbing_will_do(home: Home, directory: JobDirectory) -> bool:
    """Whether a job was held by hand before anything was started, and has other signals to train on."""
    untouched = directory.held.exists() and directory.result() is None and not directory.events()
    return untouched and rebuilding.teaches(home, batches.find(home, directory.job().batch))


def _end_promoted(home: Home, persona: str, domain: str) -> None:
    """What a killed gate had promoted and not yet put away: its batch is archived, and can be rebuilt."""
    if files.is_held(home.daemon_lock):
        return  # the gate does it
    for directory in jobs.active(home):
        job = directory.job()
        if (job.persona, job.domain) == (persona, domain) and registry.promoted(home, job):
            batches.archive(home, batches.find(home, job.batch))
            jobs.complete(home, directory)


def _may_withdraw(home: Home, directory: JobDirectory) -> bool:
    """A candidate that a running gate may be judging is left to it: it asks `unwanted` before it acts."""
    result = directory.result()
    return result is None or result.withdrawn or (result.adapter is not None and not files.is_held(home.daemon_lock))


def withdraw(home: Home, directory: JobDirectory, reason: str = WITHDRAWN) -> None:
    """Ends an active job as failed, so that its batch is ordered again. Under the home's lock.

    A running daemon stops its trainer, and then moves it to the completed ones; else it is moved at once.
    """
    if not directory.held.exists():
        files.write(directory.held, b"")
    Result(reason=reason, withdrawn=True).write(directory.result_file)
    if not files.is_held(home.daemon_lock):
        end_withdrawn(home, directory)


def end_withdrawn(home: Home, directory: JobDirectory) -> JobDirectory:
    """Moves a withdrawn job, which no trainer works at, to the completed ones; what it had learned goes."""
    if home.checkpoints(directory.id).exists():
        files.remove(home.checkpoints(directory.id))
    files.remove(directory.held)
    return jobs.complete(home, directory)


def unwanted(home: Home, directory: JobDirectory, stack: Stack) -> str:
    """Why a job's candidate may not be promoted beside ``stack``, which is served; empty: it may. For the gate.

    Under the home's lock, before the verdict is acted on; what is unwanted is to be dismissed.
    """
    result, job = directory.result(), directory.job()
    if result is None or result.adapter is None:
        return WITHDRAWN
    if job.part or registry.promoted(home, job):
        return ""  # it never is, or a crash came between that and the rest
    if retracted := provenance.newly_tainted(home, result.adapter, stack):
        return f"{WITHDRAWN}: {', '.join(retracted)}"
    waiting = {batch.id: batch for batch in batches.queued(home, job.persona, job.domain)}
    if job.batch not in waiting:
        return "its batch is no longer queued"
    if stale := rebuilding.stale(home, waiting[job.batch]):
        return stale
    if waiting[job.batch].rebuilds:
        lost = rebuilding.lost(home, waiting[job.batch])
        return f"it lacks what {', '.join(sorted(lost))} taught, which is served" if lost else ""
    if rebuilding.standing(home, job.persona, job.domain):
        return "a rebuild of its domain is queued, which would lack what it teaches"
    return ""


def dismiss(home: Home, directory: JobDirectory, reason: str, now: float) -> None:
    """Ends a job whose candidate is unwanted. Its batch is ordered again, or replaced by a rebuild that is up to date.

    For the gate, which is done with it. Under the home's lock.
    """
    job = directory.job()
    Result(reason=reason, withdrawn=True).write(directory.result_file)
    for old in rebuilding.standing(home, job.persona, job.domain):
        if old.id == job.batch and (rebuilding.stale(home, old) or rebuilding.lost(home, old)):
            _replace(home, old, reason, now)
    end_withdrawn(home, directory)


def drop_stale(home: Home, now: float) -> None:
    """Sets rebuilds aside that are not to be trained any more, with their jobs. For who orders; under the home's lock.

    A candidate that a gate may be judging is left to it, with its batch.
    """
    for names in home.domains():
        for old in rebuilding.standing(home, *names):
            if not (reason := rebuilding.stale(home, old)):
                continue
            waiting = [each for each in jobs.active(home) if each.job().batch == old.id]
            if all(_may_withdraw(home, each) for each in waiting):
                for each in waiting:
                    withdraw(home, each, reason)
                _replace(home, old, reason, now)


def _replace(home: Home, old: Batch, reason: str, now: float) -> None:
    """Sets a rebuild aside; one that is up to date takes its place while what serves everybody is tainted."""
    batches.set_aside(home, old, reason)
    if rebuilding.serving(home, old.persona, old.domain) in provenance.taints(home):
        with suppress(Conflict):
            rebuilding.queue(home, old.persona, old.domain, old.reason, now)


def recheck(home: Home, directory: JobDirectory) -> None:
    """Withdraws a job that was just written, if a signal was retracted while its examples were gathered.

    A retraction that was interrupted is ended first: until then every job of the domain would be gathered in vain.
    """
    with files.locked(home.lock):
        if not (directory.path / "job.json").exists():
            return
        job = directory.job()
        domains = [names for names in home.domains() if names[0] == job.persona]  # other domains' signals are anchors
        for names in domains:
            _end_interrupted(home, names, job.created / 1000)
        if not (directory.path / "job.json").exists() or directory.result() is not None:
            return
        drop_stale(home, job.created / 1000)
        if not (directory.path / "job.json").exists() or directory.result() is not None:
            return
        gone = [each for names in domains for each in tombstones.all_of(home, *names)]
        known = {each.id for each in jobs.read_examples(directory.examples)} if gone else set()
        stale = [each for each in gone if each.signal in known]
        if any(provenance.trains_on(directory, each.signal, (each.persona, each.domain)) for each in stale):
            withdraw(home, directory)
        for retraction in stale:
            _scrub(home, retraction)
        if gone and rehearsals.tainted(home, job.persona):
            rehearsals.scrub(directory)


def served(home: Home) -> dict[str, tuple[str, ...]]:
    """Adapters that should be served now and are tainted, with the retracted signals in each."""
    now = provenance.serving(home)
    return {adapter: found for adapter, found in provenance.taints(home).items() if adapter in now}


def _scrub(home: Home, retraction: Retraction) -> None:
    """Takes the signal out of every job's examples, and what a failed job had learned, from which it would go on."""
    names = retraction.persona, retraction.domain
    for directory in (*jobs.active(home), *jobs.completed(home)):
        if not provenance.holds(directory, retraction.signal, names):
            continue
        trained = provenance.trains_on(directory, retraction.signal, names)
        if trained and directory.path.parent == home.completed_jobs and home.checkpoints(directory.id).exists():
            files.remove(home.checkpoints(directory.id))
        data, found = provenance.lines_of(directory, retraction.signal)
        ends = [0, *(end for _, end, _ in found)]
        begins = [*(begin for begin, _, _ in found), len(data)]
        files.write(directory.examples, [data[a:b] for a, b in zip(ends, begins, strict=True)])


def _set_aside_empty(home: Home, retraction: Retraction) -> None:
    """A batch that has nothing left to teach is not trained."""
    for batch in batches.queued(home, retraction.persona, retraction.domain):
        if batch.id == retraction.batch and not rebuilding.teaches(home, batch):
            batches.set_aside(home, batch, "every signal it could teach was retracted")

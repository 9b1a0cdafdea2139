"""What must hold of a home at rest, whatever was killed on the way: each promise broken is one line of text."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kills_load import PAIRS, Injected, number_of
from kills_trainer import MODULE, factors

from genome import adapters, batches, curriculum, jobs, lora, pending, registry, segments
from genome.batches import Batch
from genome.errors import GenomeError
from genome.files import UNFINISHED
from genome.layout import Home
from genome.quality import Verdict
from genome.signals import Signal


def waiting(home: Home, threshold: int) -> str:
    """What the daemon still has to do; empty when it is done."""
    try:
        return _waiting(home, threshold)
    except FileNotFoundError as error:
        return f"{error.filename} went on while it was read"


def _waiting(home: Home, threshold: int) -> str:
    if any(home.inbox.rglob("*.jsonl")):
        return "files lie in the inbox"
    if active := jobs.active(home):
        return f"{active[0].id} is {active[0].state()}"
    if queued := batches.all_queued(home):
        return f"{queued[0].id} is queued"
    for persona, domain in PAIRS:
        if (count := pending.count(home, persona, domain).examples) >= threshold:
            return f"{count} examples of {persona}/{domain} are pending"
    return ""


def violations(home: Home, injected: Injected) -> list[str]:
    """Every promise that ``home`` breaks."""
    checks: tuple[Callable[[Home, Injected], Iterator[str]], ...] = (
        _nothing_half_made, _nothing_lost, _refused_once, _batched_once, _trained_once, _promoted_once,
        _adapters_are_whole,
    )  # fmt: skip
    found = []
    for check in checks:
        try:
            found += list(check(home, injected))
        except (GenomeError, OSError, ValueError) as error:
            found.append(f"{check.__name__.strip('_')} cannot be told: {error!r}")
    return found


def counts(home: Home) -> Counter[str]:
    """Of what lies there, for people."""
    found: Counter[str] = Counter()
    for state, _, _ in _signals(home):
        found[f"signals {state}"] += 1
    for persona, domain in PAIRS:
        found["batches archived"] += len(batches.archived(home, persona, domain))
        found["batches set aside"] += len(batches.set_aside_batches(home, persona, domain))
    found["promotions"] = sum(len(registry.history(home, persona)) for persona in _personas())
    found["trainers started"] = sum(directory.starts() for directory in jobs.completed(home))
    return found


def _nothing_half_made(home: Home, _: Injected) -> Iterator[str]:
    for path in home.root.rglob("*"):
        if UNFINISHED in path.name or ".unreadable-" in path.name:
            yield f"{path.relative_to(home.root)} is visible"
    for path in (home.root / "checkpoints").glob("*"):
        yield f"{path.relative_to(home.root)} was left behind"
    for path in home.root.rglob("*.jsonl"):
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            yield f"{path.relative_to(home.root)} ends within a line"
        for line in data.splitlines():
            json.loads(line)


def _nothing_lost(home: Home, injected: Injected) -> Iterator[str]:
    places: dict[int, list[str]] = {}
    ids: Counter[str] = Counter()
    for state, path, signal in _signals(home):
        places.setdefault(number_of(signal.input), []).append(f"{state}: {path.relative_to(home.root)}")
        ids[signal.id] += 1
    for number in sorted(injected.accepted - places.keys()):
        yield f"line {number} is lost"
    for number in sorted(places.keys() - injected.accepted):
        yield f"line {number} was never sent, and is {places[number]}"
    for number, found in sorted(places.items()):
        if len(found) > 1:
            yield f"line {number} is there {len(found)} times: {found}"
    yield from (f"id {name} is there {count} times" for name, count in ids.items() if count > 1)


def _refused_once(home: Home, injected: Injected) -> Iterator[str]:
    found = Counter(
        base64.b64decode(json.loads(line)["raw"])
        for path in sorted(home.rejected.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    )
    for raw in found.keys() | injected.refused.keys():
        if found[raw] != injected.refused[raw]:
            yield f"{raw!r} was refused {found[raw]} times, not {injected.refused[raw]}"


def _batched_once(home: Home, _: Injected) -> Iterator[str]:
    seen: dict[str, str] = {}
    for batch in _batches(home):
        members = [signal.id for signal in batches.signals(home, batch)]
        if sum(signal.teaches for signal in batches.signals(home, batch)) != batch.signals:
            yield f"{batch.id} has {len(members)} signals and says {batch.signals} teach"
        for member in members:
            if member in seen:
                yield f"{member} is in {seen[member]} and in {batch.id}"
            seen[member] = batch.id


def _trained_once(home: Home, _: Injected) -> Iterator[str]:
    """Replay and second tries are switched off, so whatever a trainer was given to learn it was given once.

    What an earlier batch had held out goes along with a later one; if that is refused, with another one after all.
    """
    trained: dict[str, str] = {}
    of_batch: dict[str, str] = {}
    for directory in jobs.completed(home):
        job = directory.job()
        if job.batch in of_batch:
            yield f"{job.batch} was trained by {of_batch[job.batch]} and by {job.id}"
        of_batch[job.batch] = job.id
        given = {example.id for example in jobs.read_examples(directory.examples) if not example.anchor}
        batch = batches.find(home, job.batch)
        if given != {signal.id for signal in curriculum.training_part(home, batch)}:
            yield f"{job.id} was not given what {job.batch} has to train"
        for example in given - (set(batch.graduates) if directory.state() == "refused" else set()):
            if example in trained:
                yield f"{example} was trained by {trained[example]} and by {job.id}"
            trained[example] = job.id
        if (state := directory.state()) not in ("promoted", "refused"):
            yield f"{job.id} ended as {state}"
    for batch in _batches(home):
        if batch.id not in of_batch:
            yield f"{batch.id} ended without a job"


def _promoted_once(home: Home, _: Injected) -> Iterator[str]:
    promoted: Counter[str] = Counter()
    for persona in _personas():
        history = registry.history(home, persona)
        if [promotion.number for promotion in history] != list(range(1, len(history) + 1)):
            yield f"{persona}'s promotions are not numbered one after the other"
        promoted.update(str(promotion.job) for promotion in history)
    for directory in jobs.completed(home):
        job, verdict = directory.job(), Verdict.read(directory.verdict_file)
        if promoted[job.id] != verdict.promote:
            yield f"{job.id} was promoted {promoted[job.id]} times; its verdict says {verdict.promote}"
        place = home.archive if verdict.promote else home.set_aside
        if not (place(job.persona, job.domain) / job.batch / "batch.json").exists():
            yield f"{job.batch} does not lie where the verdict sends it"
        for segment in batches.find(home, job.batch).segments:
            if not (place(job.persona, job.domain) / job.batch / segment).exists():
                yield f"{segment} does not lie with {job.batch}"
    if strangers := promoted.keys() - {directory.id for directory in jobs.completed(home)}:
        yield f"promoted without a job: {sorted(strangers)}"


def _adapters_are_whole(home: Home, _: Injected) -> Iterator[str]:
    """Each has the digest of its manifest and holds what its job computes to, and each job has one."""
    of_job: Counter[str] = Counter()
    for known in adapters.list_ids(home):
        made = adapters.manifest(home, str(known))
        adapters.verify(home, str(known), made.base_fingerprint)
        of_job[str(made.job)] += 1
        held = lora.read(home.adapter(str(known))).modules[MODULE]
        expected = factors(json.loads((home.completed_jobs / str(made.job) / "job.json").read_bytes()))
        if (_value(held.a), _value(held.b)) != expected:
            yield f"{known} is not what {made.job} computes to"
    for directory in jobs.completed(home):
        if of_job[directory.id] != 1:
            yield f"{directory.id} made {of_job[directory.id]} adapters"
    for persona in _personas():
        for promotion in registry.history(home, persona):
            for entry in promotion.stack:
                if adapters.manifest(home, entry.adapter).digest != entry.digest:
                    yield f"promotion {promotion.number} of {persona} names another digest of {entry.adapter}"


def _value(tensor: Any) -> float:
    return float(struct.unpack("<f", tensor.data)[0])


def _personas() -> list[str]:
    return sorted({persona for persona, _ in PAIRS})


def _batches(home: Home) -> list[Batch]:
    return [
        batch
        for persona, domain in PAIRS
        for listed in (batches.queued, batches.archived, batches.set_aside_batches)
        for batch in listed(home, persona, domain)
    ]


def _signals(home: Home) -> Iterator[tuple[str, Path, Signal]]:
    """(state, segment, signal) of everything in the buffer, wherever it lies."""
    for persona, domain in PAIRS:
        sealed = batches.sealed_segments(home, persona, domain)
        for path in sorted(home.pending(persona, domain).glob("*.jsonl")):
            state = "queued" if path.name in sealed else "pending"
            yield from ((state, path, signal) for signal in segments.read(path))
        for state, place in (("archived", home.archive), ("set aside", home.set_aside)):
            for path in sorted(place(persona, domain).glob("batch-*/*.jsonl")):
                yield from ((state, path, signal) for signal in segments.read(path))

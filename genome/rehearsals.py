"""Rehearsals: what the stack that serves a persona answers to the base's own prompts, to hold its next training to.

    rehearsals/<persona>/<stack>.jsonl

Answers that a model gave itself keep its skills where the data they came from is not trained again (self-synthesized
rehearsal, arXiv:2403.01244); here beside replay, which trains some of it. The prompts are the base's, never a user's.
An answer may still be what a version knows by heart: so they all go when a signal it was trained on is retracted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from genome import files, jobs, promotions, provenance, registry
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.promotions import Stack
from genome.training import Job

REHEARSED = (b'"prompt":"', b'"teacher":"parent"')
"""Every example of a rehearsal holds both, and no other line: an anchor of the base has another teacher, and one that
was taught has messages. In what anybody said the quotes would be escaped."""


class Rehearsal(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    """Text taken as it is, special tokens and all."""
    answer: str
    """Empty: there was none, and it is not asked for again."""


@dataclass(frozen=True)
class Missing:
    """A persona's stack whose rehearsal is not whole."""

    persona: str
    stack: Stack
    there: int
    """Lines it has."""


def path(home: Home, persona: str, stack: Stack) -> Path:
    """By what computes the answers: adapters, their weights and their scales."""
    computes = json.dumps([[entry.adapter, entry.digest, entry.scale] for entry in stack])
    return home.rehearsal(persona, hashlib.sha256(computes.encode()).hexdigest()[:16])


def read(home: Home, persona: str, stack: Stack) -> list[Rehearsal]:
    """As far as it was made, the oldest first."""
    place = path(home, persona, stack)
    if not place.exists():
        return []
    whole = place.read_bytes().split(b"\n")[:-1]  # what follows the last newline was torn by a crash
    return [Rehearsal.model_validate_json(line) for line in whole]


def due(home: Home, count: int) -> list[Missing]:
    """Whose stack has fewer than ``count`` lines; of a canary that of the others. None while a job trains.

    A stack that was trained on signals which were retracted since is not asked: it may know them by heart.
    """
    with files.locked(home.lock):  # the gate moves what has ended
        if any(directory.state() == "training" for directory in jobs.active(home)):
            return []
        stacks = {promotion.persona: registry.stack_of(home, promotion.persona) for promotion in registry.newest(home)}
        found = [
            Missing(persona, stack, there) for persona, stack in stacks.items()
            if stack and (there := len(read(home, persona, stack))) < count
        ]  # fmt: skip
        return [each for each in found if not tainted(home, each.persona)]


def add(home: Home, missing: Missing, answered: Sequence[Rehearsal]) -> bool:
    """Appends durably. False, and nothing is added, if another stack serves by now, or a signal was retracted."""
    place = path(home, missing.persona, missing.stack)
    data = "".join(json.dumps(each.model_dump(), ensure_ascii=False) + "\n" for each in answered)
    with files.locked(home.lock):
        if registry.stack_of(home, missing.persona) != missing.stack or tainted(home, missing.persona):
            return False
        if len(read(home, missing.persona, missing.stack)) != missing.there:
            return False
        files.make_directory(place.parent)
        files.append(place, data.encode())
    return True


def of_parent(home: Home, job: Job) -> list[Rehearsal]:
    """What a job is held to: the answers of what serves, if the job goes on from its version of the domain."""
    stack = registry.stack_of(home, job.persona)
    if job.parent is None or promotions.versions(stack).get((job.persona, job.domain)) != job.parent:
        return []
    return [each for each in read(home, job.persona, stack) if each.answer.strip()]


def stale(home: Home) -> list[Path]:
    """Those of stacks that serve no sessions any more."""
    serve = set()
    for promotion in registry.newest(home):
        serve |= {path(home, promotion.persona, each) for each in (
            promotion.stack, registry.stack_of(home, promotion.persona))}  # fmt: skip
    return sorted(set(home.rehearsal("x", "x").parent.parent.glob("*/*.jsonl")) - serve)


def tainted(home: Home, persona: str) -> bool:
    """Whether what serves a persona was trained on signals that were retracted since."""
    taints = provenance.taints(home)
    return any(entry.adapter in taints for entry in registry.stack_of(home, persona))


def forget(home: Home, persona: str) -> None:
    """Removes all that a persona's versions answered, from its jobs too: a signal they were trained on was retracted.

    Under the home's lock. Doing it again changes nothing.
    """
    place = home.rehearsal(persona, "x").parent
    if place.exists():
        files.remove(place)
    for directory in (*jobs.active(home), *jobs.completed(home)):
        if directory.job().persona == persona:
            scrub(directory)


def scrub(directory: JobDirectory) -> None:
    """Takes the rehearsal out of a job's examples."""
    data = directory.examples.read_bytes() if directory.examples.exists() else b""
    lines = data.splitlines(keepends=True)
    kept = [line for line in lines if not all(part in line for part in REHEARSED)]
    if len(kept) < len(lines):
        files.write(directory.examples, kept)

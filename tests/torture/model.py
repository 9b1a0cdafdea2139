"""What must hold of a home on disk: at any moment, and once a turn has come to its end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from turn import BAD, QUESTIONS

from genome import adapters, batches, curriculum, files, jobs, lora, registry, rejected, segments
from genome.batches import Batch
from genome.jobs import Result
from genome.layout import Home
from genome.promotions import Promotion
from genome.quality import Verdict
from genome.training import Job


def half_visible(home: Home) -> list[str]:
    """Whatever bears its final name and is not whole. Changes nothing, which `Record.read` would."""
    found = []
    for path, check in _finished(home):
        try:
            check(path)
        except Exception as error:
            found.append(f"{path.relative_to(home.root)} is not whole: {type(error).__name__}: {str(error)[:200]}")
    return found


def _finished(home: Home) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    records = {"batch.json": Batch, "job.json": Job, "result.json": Result, "verdict.json": Verdict}
    for path in sorted(home.root.rglob("*")):
        relative = path.relative_to(home.root)
        if any(part.startswith(files.UNFINISHED) for part in relative.parts) or path.is_relative_to(home.inbox):
            continue
        if path.name in records:
            yield path, lambda path: records[path.name].from_bytes(path.read_bytes())
        elif path.parent.name == "promotions":
            yield path, lambda path: Promotion.from_bytes(path.read_bytes())
        elif path.name == "train.jsonl":
            yield path, jobs.read_examples
        elif path.name.startswith("batch-"):
            yield path, lambda path: Batch.from_bytes((path / "batch.json").read_bytes())
        elif path.name.startswith("job-") and path.is_relative_to(home.jobs):
            yield path, lambda path: Job.from_bytes((path / "job.json").read_bytes())
        elif path.parent.parent == home.adapters and adapters.ID.fullmatch(f"{path.parent.name}/{path.name}"):
            yield path, _check_adapter
        elif path.suffix == ".jsonl" and path.is_relative_to(home.buffer):
            yield path, _check_lines


def _check_adapter(path: Path) -> None:
    manifest = adapters.Manifest.from_bytes((path / "manifest.json").read_bytes())
    assert lora.read(path).digest == manifest.digest, "its digest is another"


def _check_lines(path: Path) -> None:
    for one in path.read_bytes().split(b"\n")[:-1]:
        json.loads(one)


def questions_on_disk(home: Home) -> Counter[str]:
    """How often each accepted question lies in a segment, wherever that lies."""
    buffers = sorted(home.buffer.glob("*/*/pending/*.jsonl")) + sorted(home.buffer.glob("*/*/*/batch-*/*.jsonl"))
    return Counter(stored.signal.input for stored in segments.scan_all(buffers))


def refused_on_disk(home: Home) -> Counter[bytes]:
    return Counter(line.raw_bytes for line in rejected.read(home))


def broken(home: Home, resting: bool = True) -> list[str]:
    """What a turn that came to its end broke of its promises. ``resting``: nothing half-made may be left either."""
    try:
        return [*half_visible(home), *_miscounted(home), *_unfinished(home, resting)]
    except Exception as error:
        return [f"it cannot be read: {type(error).__name__}: {error}"]


def _miscounted(home: Home) -> Iterator[str]:
    held, refused = questions_on_disk(home), refused_on_disk(home)
    if lost := sorted(QUESTIONS - set(held)):
        yield f"lost: {lost}"
    if twice := sorted(question for question, count in held.items() if count > 1):
        yield f"stored twice: {twice}"
    if set(held) - QUESTIONS:
        yield f"stored from nowhere: {sorted(set(held) - QUESTIONS)}"
    if len(refused) != BAD or set(refused.values()) != {1}:
        yield f"refused lines: {dict(refused)}"


def _unfinished(home: Home, resting: bool) -> Iterator[str]:
    done = batches.archived(home, "helper", "git")
    waiting = batches.all_queued(home) + batches.set_aside_batches(home, "helper", "git")
    if len(done) != 1 or waiting:
        yield f"batches archived: {[batch.id for batch in done]}, others: {[batch.id for batch in waiting]}"
    for batch in done:
        taught = Counter(signal.input for signal in batches.signals(home, batch))
        if taught != Counter(QUESTIONS):
            yield f"{batch.id} holds {dict(taught)}"
        examples = Counter(example.id for job in jobs.completed(home) for example in jobs.read_examples(job.examples))
        if examples != Counter(signal.id for signal in curriculum.training_part(home, batch)):
            yield f"trained: {dict(examples)}"
    states = [directory.state() for directory in jobs.completed(home)]
    if states != ["promoted"] or jobs.active(home):
        yield f"jobs: {states}, still active: {[directory.id for directory in jobs.active(home)]}"
    if (made := [str(known) for known in adapters.list_ids(home)]) != ["helper/git-v1.0"]:
        yield f"adapters: {made}"
    if (numbers := [promotion.number for promotion in registry.history(home, "helper")]) != [1]:
        yield f"promotions: {numbers}"
    if left := [str(path.relative_to(home.root)) for path in home.inbox.rglob("*.jsonl")]:
        yield f"left in the inbox: {left}"
    if any(home.pending("helper", "git").iterdir()):
        yield "something is still pending"
    if resting and (rubbish := [path.name for path in home.root.rglob(f"{files.UNFINISHED}*")]):
        yield f"left half-made: {rubbish}"

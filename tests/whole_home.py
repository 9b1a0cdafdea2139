"""A home that lived: batches promoted, refused and queued, jobs and adapters, refused lines, a ledger with runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fixed import NOW

from genome import adapters, batches, intake, jobs, ledger, registry, scores
from genome.batches import Batch, HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Intake
from genome.intake import Reading, Scan
from genome.jobs import JobDirectory, Result
from genome.layout import Home
from genome.lines import from_signal
from genome.lora import Factors, Lora
from genome.quality import Verdict
from genome.scores import Scores
from genome.tensors import Tensor
from genome.training import Event, Example, Job, TrainingSettings

DAY = 86_400.0
POLICY = HeldOutPolicy(0.3, 150)
BASE = "f" * 64
COUNTS = {"accepted": 54, "pending": 5, "queued": 10, "archived": 23, "set aside": 10, "superseded": 1, "retracted": 0,
          "evidence": 5, "rejected": 2}  # fmt: skip
"""What `make` leaves."""


def weights(seed: int = 0) -> Lora:
    """A small adapter of one module."""
    generator = np.random.default_rng(seed)
    a, b = (generator.normal(size=shape).astype(np.float32) for shape in ((2, 4), (6, 2)))
    factors = Factors(Tensor("F32", a.shape, a.tobytes()), Tensor("F32", b.shape, b.tobytes()), 2.0)
    return Lora({"model.layers.0.self_attn.q_proj": factors}, "")


def ordered(home: Home, batch: Batch, now: float, parent: str | None = None) -> JobDirectory:
    """A batch's job, which waits."""
    job = Job(
        id=f"job-{batch.id.removeprefix('batch-')}", persona=batch.persona, domain=batch.domain, batch=batch.id,
        trainer="fake", base="base", base_fingerprint=BASE, parent=parent, settings=TrainingSettings(),
        created=int(now * 1000),
    )  # fmt: skip
    return jobs.create(home, job, iter([Example(id="a", prompt="q", response="a")]))


def trained(home: Home, directory: JobDirectory, now: float) -> str:
    """The candidate of a job."""
    job = directory.job()
    directory.record(Event(event="started", time=now))
    known = adapters.list_ids(home)
    described = {"id": str(adapters.next_id(home, job.persona, job.domain)), "base_fingerprint": BASE,
                 "job": job.id, "batch": job.batch,
                 "created": int(now * 1000)}  # fmt: skip
    made = adapters.install(home, weights(len(known)), "base", described)
    Result(adapter=made.id).write(directory.result_file)
    return made.id


def judged(home: Home, directory: JobDirectory, batch: Batch, promote: bool, now: float) -> None:
    """The end of a job with a candidate."""
    candidate = directory.result().adapter or ""  # type: ignore[union-attr]
    Verdict(
        job=directory.id, candidate=candidate, incumbent=(), promote=promote, reason="test", findings=(),
        created=int(now * 1000),
    ).write(directory.verdict_file)  # fmt: skip
    if promote:
        known = {"anchors": {"anchor 1": (1.0, 2.0)}}
        Scores(adapter=candidate, incumbent=(), before=known, after=known).write(scores.path(home, candidate))
        registry.promote(home, candidate, now, "better", directory.id)
        batches.archive(home, batch)
    else:
        batches.set_aside(home, batch, "worse")
    jobs.complete(home, directory)


def turn(home: Home, lines: list[Any], promote: bool, now: float) -> str:
    """Signals to their verdict; the candidate's id."""
    batch = fill(home, lines, now)
    directory = ordered(home, batch, now)
    candidate = trained(home, directory, now)
    judged(home, directory, batch, promote, now)
    return candidate


def fill(home: Home, lines: list[Any], now: float) -> Batch:
    """A queued batch of some signals."""
    into = Buffer(home, Intake())
    into.accept([from_signal(line) for line in lines], now)
    batch = batches.form(home, "helper", "git", "test", now, POLICY)
    assert batch is not None
    return batch


def make(home: Home, signal: Callable[..., Any], drop: Callable[..., Any], patch: pytest.MonkeyPatch) -> Home:
    """Two promoted batches, one set aside, one queued with a waiting job; signals pending; lines refused."""
    patch.setattr(ledger, "RUN_IDS", 8)
    evidence = {"type": "mistake", "correctOutput": None}
    turn(home, [*(signal(i) for i in range(12)), *(signal(100 + i, **evidence) for i in range(4))], True, NOW)
    turn(home, [signal(20 + i) for i in range(10)], False, NOW + DAY)
    turn(home, [signal(3, correctOutput="better"), *(signal(40 + i) for i in range(11))], True, NOW + 2 * DAY)
    ordered(home, fill(home, [signal(60 + i) for i in range(10)], NOW + 3 * DAY), NOW + 3 * DAY, "helper/git-v1.2")
    into = Buffer(home, Intake())
    into.accept([from_signal(signal(80 + i)) for i in range(5)], NOW + 4 * DAY)
    into.accept([from_signal(signal(200, **evidence))], NOW + 4 * DAY)
    drop(b"nope", b'{"a": 1}')
    found = next(intake.drops(home, Scan(NOW, 0)))
    into.commit(list(Reading(found, intake.NOTHING, True, 1 << 20).chunks()), NOW + 4 * DAY)
    return home

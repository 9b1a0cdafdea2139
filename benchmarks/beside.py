"""What serving feels of a training: gaps between a reply's tokens, with a job on the same two cores and without."""

from __future__ import annotations

import itertools
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import corrections, models, training_jobs
from benchmarks.streams import Client, Reply, streams, worker
from genome.layout import Home
from genome.signals import Signal
from genome.training import TrainingSettings

LENGTHS = {"S": (6, 60), "M": (2, 32)}
"""Replies of each stream in one turn, and tokens of a reply."""
SHARE = 0.99
ENDLESS = 20_000
"""Steps of a job that is ended when enough was heard."""


@dataclass(frozen=True)
class Gaps:
    """Seconds between a reply's tokens, at the 99th percentile and at the median."""

    p99: float
    median: float


async def beside(name: str, base: Path, signals: list[Signal], directory: Path, rounds: int) -> tuple[Gaps, Gaps]:
    """(alone, with a torch job): eight streams of a worker process, in turns.

    The job trains the base that is served, with the default settings. When it is not its turn it is stopped where it
    stands (SIGSTOP), and so keeps its memory.
    """
    home = Home(directory / f"serving-{name}")
    home.root.mkdir(parents=True)
    ids = models.make_adapters(home, base, "float32", 1)
    settings = TrainingSettings()
    epochs = ENDLESS * settings.batch_size / len(signals)
    job = training_jobs.order(base, "torch", settings.model_copy(update={"epochs": epochs}))
    written = training_jobs.write(directory / f"endless-{name}", job, corrections.examples(signals))
    heard: dict[bool, list[float]] = {False: [], True: []}
    with training_jobs.two_cores(), training_jobs.running("torch", written) as trainer:
        async with worker(home, base, "auto", ids) as client:
            for turn in range(rounds + 1):
                for trains in (False, True):
                    trainer.send_signal(signal.SIGCONT if trains else signal.SIGSTOP)
                    found = await _gaps(client, *LENGTHS[name])
                    heard[trains] += found if turn else []
                    if trainer.poll() is not None:
                        raise RuntimeError("the training ended before the serving did")
    return _summary(heard[False]), _summary(heard[True])


async def _gaps(client: Client, replies: int, tokens: int) -> list[float]:
    found: list[Reply] = await streams(client, replies, tokens)
    if any(reply.failed for reply in found):
        raise RuntimeError("a reply failed")
    return [after - before for reply in found for before, after in itertools.pairwise(reply.arrivals)]


def _summary(gaps: list[float]) -> Gaps:
    return Gaps(float(np.quantile(gaps, SHARE)), float(np.median(gaps)))

"""Learning for measuring: homes in which batches are ordered and trained as the daemon does it, and plain PEFT.

What is left out is the gate: every candidate is promoted, and nothing is held out of a batch, so that the training is
what is measured. Whatever is made lies complete in a directory of its own; a run that begins again goes on from there.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from peft import PeftModel, get_peft_model

from benchmarks import corrections, steps, training_jobs
from daemon import anchors, orders, worker_client
from daemon.demo import processes
from genome import adapters, bases, batches, config, files, jobs, lora, promotions, registry
from genome.batches import HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config
from genome.jobs import Result
from genome.layout import Home
from genome.lines import from_signal
from genome.signals import Signal
from genome.training import TrainingSettings

PERSONA = "learner"
BEGAN = 1_763_700_000.0
"""Seconds since 1970. Batches are named by their day, and samples of replay drawn by that name: each run the same."""
DAY = 86_400.0


@dataclass
class Learner:
    """A home, and what it has learned so far."""

    home: Home
    base: Path

    @property
    def config(self) -> Config:
        return config.load(self.home)

    @property
    def stack(self) -> list[Path]:
        """What serves."""
        return [self.home.adapter(entry.adapter) for entry in registry.stack_of(self.home, PERSONA)]

    @classmethod
    def new(cls, root: Path, base: Path, training: str, anchored: Path) -> Learner:
        """``training``: what genome.toml says of it. ``anchored``: a home in which this base's anchors lie."""
        home, fingerprint = Home(root), bases.fingerprint(base)
        config.init(home, str(base))
        home.config.write_text(f'base = "{base}"\n{training}')
        source = Home(anchored).anchors(fingerprint)
        files.make_directory(home.anchors(fingerprint).parent)
        shutil.copy(source, home.anchors(fingerprint))
        return cls(home, base)

    def copied(self, root: Path) -> Learner:
        shutil.copytree(self.home.root, root)
        return Learner(Home(root), self.base)

    def learn(self, domain: str, signals: Sequence[Signal]) -> None:
        """One batch, from its signals to the version that serves."""
        now = BEGAN + DAY * len(registry.history(self.home, PERSONA))
        into = Buffer(self.home, self.config.intake)
        into.load()
        own = {"persona_id": PERSONA, "domain": domain}
        into.accept([from_signal(signal.model_copy(update=own)) for signal in signals], now)
        into.flush()
        batch = batches.form(self.home, PERSONA, domain, "measured", now, HeldOutPolicy(0, 0))
        assert batch is not None
        job = orders.order(self.home, self.config, batch, self.base, bases.fingerprint(self.base))
        directory = jobs.find(self.home, job.id)
        run = training_jobs.run(job.trainer, directory.path, self.home.checkpoints(job.id))
        described = {
            "id": str(adapters.next_id(self.home, PERSONA, domain)), "base_fingerprint": job.base_fingerprint,
            "parent": job.parent, "batch": batch.id, "job": job.id, "created": job.created,
        }  # fmt: skip
        made = adapters.install(self.home, lora.read(run.adapter), job.base, described)
        files.remove(self.home.checkpoints(job.id))
        Result(adapter=made.id, train_seconds=run.seconds).write(directory.result_file)
        registry.promote(self.home, made.id, now, "measured", job.id)
        batches.archive(self.home, batch)
        jobs.complete(self.home, directory)
        served = promotions.versions(registry.stack_of(self.home, PERSONA))
        assert served[PERSONA, domain] == made.id


async def sample_anchors(home: Home, settings: Config) -> None:
    """What the base answers itself, asked of a worker as the daemon asks it."""
    async with _worker(home), worker_client.connect(settings, home) as worker:
        found = await anchors.sample(settings, worker, await worker.info())
    data = "".join(each.model_dump_json() + "\n" for each in found)
    files.write(home.anchors(bases.fingerprint(Path(settings.base))), data.encode())


@asynccontextmanager
async def _worker(home: Home) -> AsyncIterator[None]:
    with (home.root / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "inference_worker", str(home.root)]
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        await processes.ready(home)
        yield
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await process.wait()


def plain_peft(
    out: Path, base: Path, signals: Sequence[Signal], settings: TrainingSettings, parent: Path | None = None
) -> None:
    """PEFT alone, no anchors and no replay, in padded shuffled batches; saved to ``out``."""
    work = steps.Work(
        training_jobs.order(base, "torch", settings), corrections.tokens(signals, base, settings.max_tokens)
    )
    model = work.model()
    model = (
        PeftModel.from_pretrained(model, parent, is_trainable=True) if parent else get_peft_model(model, work.lora())
    )
    count = -(-len(work.signals) // settings.batch_size)
    total = max(1, round(settings.epochs * count))
    order = random.Random(settings.seed)
    dealt = [batch for _ in range(-(-total // count)) for batch in
             corrections.shuffled(work.signals, count, order.randrange(1 << 30))]  # fmt: skip
    steps.peft_steps(model, work, dealt[:total])
    model.save_pretrained(out, save_embedding_layers=False)

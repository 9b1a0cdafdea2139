"""The job at the service: the name it has there, which is all a process needs to go on, and what it is asked for."""

from __future__ import annotations

import math
import re
import secrets
from pathlib import Path
from typing import Any

from genome import lora
from genome.config import Fireworks
from genome.errors import InvalidInput
from genome.records import Record
from genome.training import ENDED, Job, TrainingSettings

FILE = "fireworks.json"
"""Of the checkpoint directory."""
LONGEST_ID, LARGEST_RANK = 63, 32


class Remote(Record):
    """Written before the service is asked for anything, so that no second job is ever started, or paid, for one."""

    id: str
    """Of the dataset, of the job, and of the model it makes."""
    account: str
    url: str
    started: bool = False
    """Whether the service said that it has the job."""
    ended: str = ""
    """Why it ended without an adapter that can be used. Such a record is moved to `genome.training.ENDED`."""
    cleared: bool = False
    """Whether what was uploaded is known to be gone."""

    def is_of(self, settings: Fireworks) -> bool:
        """Whether that account has it."""
        return (self.account, self.url) == (settings.account, settings.url)


def called(job: str) -> str:
    """A new id: the service's ids are up to 63 lower-case letters, digits and hyphens."""
    unique = secrets.token_hex(4)
    words = re.sub(r"[^a-z0-9]+", "-", f"genome-{job}".lower())[: LONGEST_ID - len(unique) - 1].strip("-")
    return f"{words}-{unique}"


def parent_id(parent: lora.Lora) -> str:
    """By what it computes: an adapter that is there already is not sent again."""
    return f"genome-parent-{parent.identity[:32]}"


def order(job: Job, settings: Fireworks, remote: Remote, signals: int, parent: lora.Lora | None) -> dict[str, Any]:
    """What the service is asked for: training's settings as far as it has them; docs/fireworks.md says which."""
    account = f"accounts/{settings.account}"
    wanted = job.settings
    rank = parent.rank if parent else min(wanted.rank, LARGEST_RANK)
    if rank > LARGEST_RANK or rank & (rank - 1):
        raise InvalidInput(
            f"the service trains no LoRA of rank {rank}, only of powers of 2 up to {LARGEST_RANK}",
            "Set training.rank in genome.toml to one of them"
            if parent is None
            else f"That is the rank of {job.parent}, which it goes on from: train here, or begin another domain",
        )
    begin = {"warmStartFrom": f"{account}/models/{parent_id(parent)}"} if parent else {"baseModel": settings.base_model}
    return {
        **begin,
        "displayName": job.id,
        "dataset": f"{account}/datasets/{remote.id}",
        "outputModel": f"{account}/models/{remote.id}",
        "loraRank": rank,
        "epochs": wanted.epochs,
        "learningRate": wanted.learning_rate,
        "learningRateWarmupSteps": _warmup_steps(wanted, signals),
        "lrScheduler": {"cosine": {"minLrRatio": 0}},
        "batchSizeSamples": wanted.batch_size,
        "optimizerWeightDecay": wanted.weight_decay,
        "earlyStop": False,
        "evalAutoCarveout": False,
    }


def read(directory: Path) -> Remote | None:
    """What an earlier process of the job left: its end, else what goes on there."""
    found = next((path for path in (directory / ENDED, directory / FILE) if path.exists()), None)
    return Remote.read(found) if found else None


def _warmup_steps(wanted: TrainingSettings, signals: int) -> int:
    return round(wanted.warmup_fraction * math.ceil(signals * wanted.epochs / wanted.batch_size))

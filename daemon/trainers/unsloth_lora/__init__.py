"""Unsloth and TRL: the trainer for NVIDIA GPUs; Unsloth's CPU backend runs it elsewhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from genome import copies

if TYPE_CHECKING:
    from daemon.trainers.unsloth_lora.trainer import UnslothTrainer
    from genome.training import Job


def load(job: Job) -> UnslothTrainer:
    """Loads the base and lays a new LoRA, or the parent's, on all linear layers but the output."""
    copies.check_readable(Path(job.base), "torch")
    # Unsloth reads these when it is imported. It writes the sources it generates to a directory and imports them from
    # there: a private one, and not the working directory.
    generated = tempfile.TemporaryDirectory(prefix="genome-unsloth-")
    os.environ["UNSLOTH_COMPILE_LOCATION"] = generated.name
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    from daemon.trainers.unsloth_lora import trainer

    loaded = trainer.load(job)
    loaded.generated = generated  # lives as long as the trainer
    return loaded

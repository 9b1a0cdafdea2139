"""mlx-lm: the trainer for Apple silicon; runs on a Linux CPU as well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genome import blas, copies

if TYPE_CHECKING:
    from daemon.trainers.mlx_lora.trainer import MlxTrainer
    from genome.training import Job


def load(job: Job) -> MlxTrainer:
    """Loads the base and lays a new LoRA, or the parent's, on the decoder's linear layers."""
    copies.check_readable(Path(job.base), "mlx")
    if not blas.prefer_fast():  # works only before MLX is imported
        print(blas.SLOW, file=sys.stderr)
    from daemon.trainers.mlx_lora import trainer

    return trainer.load(job)

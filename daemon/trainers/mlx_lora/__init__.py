"""mlx-lm: the trainer for Apple silicon; runs on a Linux CPU as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.trainers.mlx_lora.trainer import MlxTrainer
    from genome.jobs import Job


def load(job: Job) -> MlxTrainer:
    """Loads the base and lays a new LoRA, or the parent's, on all linear layers but the output."""
    from daemon.trainers.mlx_lora import blas

    blas.prefer_fast()  # works only before MLX is imported
    from daemon.trainers.mlx_lora import trainer

    return trainer.load(job)

"""transformers and PEFT: the trainer for CPU, CUDA and MPS, and the reference for the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genome import copies

if TYPE_CHECKING:
    from daemon.trainers.torch_lora.trainer import TorchTrainer
    from genome.training import Job


def load(job: Job) -> TorchTrainer:
    """Loads the base and lays a new LoRA, or the parent's, on the decoder's linear layers."""
    copies.check_readable(Path(job.base), "torch")
    from daemon.trainers.torch_lora import trainer

    return trainer.load(job)

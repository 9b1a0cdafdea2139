"""The MLX engine: mlx-lm's own modules, unmodified, batched and with adapters. Apple silicon, or a CPU.

slots        adapters in the linear layers
output       logits of the tokens that are asked for alone
rows         key/value rows behind the library's cache protocol (the only file that touches it)
likelihoods  from logits to the likelihood of continuations
batched      rows of different lengths in one forward
solo         one row at a time through the library's own cache, for architectures that do not batch
selfcheck    which of the two it is
model        `MlxEngine`, which ties them together
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from genome import blas
from genome.config import Worker

if TYPE_CHECKING:
    from inference_worker.engine_mlx.model import MlxEngine

log = structlog.get_logger()


def load(base: Path, settings: Worker) -> MlxEngine:
    """Loads a Hugging Face or mlx-lm causal language model. Raises InvalidConfig if it is none, or the device is not
    there."""
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))  # what a BLAS reads when it is loaded
    if not blas.prefer_fast():  # works only before MLX is imported
        log.warning(blas.SLOW)
    from inference_worker.engine_mlx import model

    return model.load(base, settings)

"""How a trainer fits into memory, as the runner planned it: `genome.memory` says what is chosen, and why.

Passed by environment, because it belongs to one start of a job and not to the job: the adapter is the same either way,
within float noise, and a job that is gone on with may find another amount of memory free.
"""

from __future__ import annotations

import os

from genome.memory import CHECKPOINTING_VARIABLE, PASS_TOKENS_VARIABLE, WHOLE_PASS


def tokens() -> int:
    """Rows times columns of one forward and backward pass. A step with more is done in several."""
    return int(os.environ.get(PASS_TOKENS_VARIABLE) or WHOLE_PASS)


def gradient_checkpointing() -> bool:
    """Whether a layer's activations are computed again on the way back instead of being kept."""
    return os.environ.get(CHECKPOINTING_VARIABLE) == "1"

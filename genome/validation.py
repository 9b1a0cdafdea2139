"""Which signals of a batch its trainer only measures itself by: the validation share.

They tell when to stop (``training.patience``), and are not the held-out questions, which the gate judges by: to stop by
those would be to know the exam. The choice follows from the batch and the settings, so it is written nowhere else than
in train.jsonl. It is a choice of the trainer's alone: to the batch they are signals of its train part like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from genome.signals import Signal

FEWEST = 16
"""Signals a validation loss is taken on; a share with fewer is noise, and its signals are trained on instead."""


def chosen(signals: Sequence[Signal], fraction: float, batch: str) -> frozenset[str]:
    """Ids of about ``fraction`` of ``signals``, by whole questions, chosen by a hash with the batch's id."""
    questions = sorted({signal.question for signal in signals}, key=lambda each: _rank(batch, each))
    asked = set(questions[: int(fraction * len(questions))])
    found = frozenset(signal.id for signal in signals if signal.question in asked)
    return found if FEWEST <= len(found) < len(signals) else frozenset()


def _rank(batch: str, question: str) -> bytes:
    return hashlib.sha256(f"validation {batch} {question}".encode()).digest()

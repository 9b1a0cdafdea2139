"""Teacher-forced scores of known answers, in batches, by a base with adapters that add up: W + Σ scaling · B A."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from benchmarks import corrections
from daemon.trainers.examples import Tokens
from genome import lora, tensors
from genome.signals import Signal

BATCH = 32
"""Answers scored together."""


@dataclass(frozen=True)
class Score:
    """Of several answers, in order. The token that ends an answer counts as one of its tokens."""

    tokens: np.ndarray
    right: np.ndarray
    """Tokens that were the likeliest, given those before."""
    loss: np.ndarray
    """Nats, added over the tokens."""

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / self.tokens.sum())

    @property
    def mean_loss(self) -> float:
        """Nats a token."""
        return float(self.loss.sum() / self.tokens.sum())


class Scorer:
    """One base in float32; adapters are added to its weights for a question set, and taken off again."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval().requires_grad_(False)
        self._clean = {name: weight.clone() for name, weight in self._model.state_dict().items()}

    def score(self, signals: Sequence[Signal], stack: Sequence[Path] = ()) -> Score:
        """``stack``: PEFT directories."""
        self._model.load_state_dict(self._clean)
        for path in stack:
            self._add(path)
        asked = corrections.tokens(signals, self.base).signals
        scored = [row for start in range(0, len(asked), BATCH) for row in self._rows(asked[start : start + BATCH])]
        return Score(*np.array(scored).T)

    def _add(self, path: Path) -> None:
        for module, factors in lora.read(path).modules.items():
            update = factors.scaling * _tensor(factors.b) @ _tensor(factors.a)
            self._model.get_submodule(module).weight.data += update

    @torch.inference_mode()
    def _rows(self, asked: Sequence[Tokens]) -> list[tuple[int, int, float]]:
        """(tokens, right ones, loss) of each."""
        # Padding is on the right, where a causal model cannot look.
        ids = torch.zeros((len(asked), max(map(len, asked))), dtype=torch.long)
        for row, each in enumerate(asked):
            ids[row, : len(each)] = torch.tensor(each.prompt + each.response)
        logits = self._model(input_ids=ids, use_cache=False).logits
        rows = []
        for row, each in enumerate(asked):
            start, end = len(each.prompt), len(each)
            predicted, wanted = logits[row, start - 1 : end - 1], ids[row, start:end]
            right = int((predicted.argmax(-1) == wanted).sum())
            rows.append((end - start, right, float(functional.cross_entropy(predicted, wanted, reduction="sum"))))
        return rows


def _tensor(tensor: tensors.Tensor) -> Tensor:
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}[tensor.dtype]
    return torch.frombuffer(bytearray(tensor.data), dtype=dtype).reshape(tensor.shape).float()

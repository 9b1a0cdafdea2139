"""What a step with PyTorch minimises, and logits at response positions only, for a model of any architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from daemon.trainers.batches import Batch, batches
from daemon.trainers.contract import Lesson, Losses
from daemon.trainers.examples import TEACHER_TOKENS, Distributions
from daemon.trainers.torch_lora import attention
from genome.training import TrainingSettings

SMALLEST = 1e-9
"""Of a probability that is had by taking others from 1."""


class ResponseLogits:
    """Calls a causal language model and gets its logits at a batch's response positions alone, [k, vocabulary].

    The choice is made where the hidden states enter the output layer, whatever the architecture does around it; the
    rest of the logits, often the largest tensor of all, is never computed. A model without such a layer gives all.
    ``packed``: the model attends as `attention` does, so rows need no padding.
    """

    def __init__(self, model: Any, packed: bool) -> None:
        self._model, self.packed = model, packed
        self._places: Tensor | tuple[Tensor, Tensor] | None = None
        output = model.get_output_embeddings()
        if output is not None:
            output.register_forward_pre_hook(self._choose)

    def __call__(self, batch: Batch) -> Tensor:
        places = self._places = self._where(batch)
        if self.packed:
            attention.lay_out(batch.lengths, self._model.device)
            tokens, positions = self.tensor(batch.tokens[None]), self.tensor(batch.positions[None])
            # A layer that is computed again on the way back would find other places to compute.
            again = self._model.is_gradient_checkpointing
            with nullcontext() if again else attention.asking(places[1], tokens.numel()):
                logits = self._model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        else:
            # Padding is on the right, where a causal model cannot look: without a mask the fast path is taken.
            logits = self._model(input_ids=self.tensor(batch.padded), use_cache=False).logits
        chosen, self._places = self._places is None, None
        return (logits.squeeze(0) if chosen else logits[places]).float()

    def _where(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.packed:
            places = self.tensor(batch.places)
            return torch.zeros_like(places), places
        return self.tensor(batch.rows), self.tensor(batch.columns)

    def _choose(self, _layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._places is None:
            return None
        places, self._places = self._places, None
        hidden, *rest = inputs
        return (hidden[places].unsqueeze(0), *rest)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Without gradients and without what is random in training."""
        self._model.eval()
        with torch.no_grad():
            yield
        self._model.train()

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)


class Objective:
    """The terms of a step's loss; each is a sum over a batch, and over a step's batches a weighted mean."""

    def __init__(self, logits: ResponseLogits, settings: TrainingSettings) -> None:
        self._logits, self._settings = logits, settings

    def backward(
        self, lesson: Lesson, pass_tokens: int, backward: Callable[[Tensor], None] = Tensor.backward
    ) -> Losses:
        """Adds the gradients of a step's loss to the parameters'; returns its terms."""
        size, settings = (pass_tokens, not self._logits.packed), self._settings
        cross_entropy, preference, divergence = 0.0, 0.0, 0.0
        for batch in batches(lesson.signals, *size):
            learned, preferred = self.learn(batch)
            cross_entropy += learned.item()
            if preferred is not None:
                preference += preferred.item()
                learned = learned + settings.preference_weight * preferred
            backward(learned)
        for batch in (batch for part in lesson.held for batch in batches(part, *size)):
            kept = self.keep(batch)
            divergence += kept.item()
            backward(settings.anchor_weight * kept)
        return Losses.of(lesson, cross_entropy, divergence, preference)

    def learn(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of right answers; and the preference for them over wrong ones, None without pairs: DPO
        (arXiv:2305.18290), against the model as it was when the run began."""
        losses = self._losses(batch)
        cross_entropy = (losses * self._tensor(batch.weights)).sum()
        if not len(batch.pairs):
            return cross_entropy, None
        gains = self._by_row(-losses, batch)[self._tensor(batch.pairs)] - self._tensor(batch.references)
        margins = self._settings.preference_beta * (gains[:, 0] - gains[:, 1])
        return cross_entropy, -(functional.logsigmoid(margins) * self._tensor(batch.pair_weights)).sum()

    def keep(self, batch: Batch) -> Tensor:
        """KL(teacher ‖ model)."""
        assert batch.teacher is not None
        theirs = self._tensor(batch.teacher.log_probabilities)
        found = functional.log_softmax(self._logits(batch), dim=-1)
        ours = _with_rest(found, self._tensor(batch.teacher.tokens))
        losses = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
        return (losses * self._tensor(batch.weights)).sum()

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        """Of each row's response, [n]."""
        with self._logits.measuring():
            return self._by_row(-self._losses(batch), batch).cpu().numpy()

    def distributions(self, batch: Batch) -> Distributions:
        with self._logits.measuring():
            found = functional.log_softmax(self._logits(batch), dim=-1)
        tokens = found.topk(min(TEACHER_TOKENS, found.shape[-1]), dim=-1).indices
        return Distributions(tokens.cpu().numpy(), _with_rest(found, tokens).cpu().numpy())

    def _losses(self, batch: Batch) -> Tensor:
        return functional.cross_entropy(self._logits(batch), self._tensor(batch.targets), reduction="none")

    def _by_row(self, values: Tensor, batch: Batch) -> Tensor:
        """Sums of [k] over each row's places, [n]."""
        return values.new_zeros(len(batch.lengths)).index_add(0, self._tensor(batch.rows), values)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return self._logits.tensor(array)


def _with_rest(log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    """Of ``tokens`` [k, c], and of all others together: [k, c + 1]."""
    chosen = log_probabilities.gather(-1, tokens)
    rest = (1 - chosen.exp().sum(-1, keepdim=True)).clamp_min(SMALLEST).log()
    return torch.cat([chosen, rest], dim=-1)

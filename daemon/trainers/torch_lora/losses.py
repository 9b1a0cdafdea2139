"""The two terms of a step's loss, and logits at response positions only, for a PEFT model of any architecture."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from daemon.trainers.batches import Batch


class ResponseLogits:
    """Calls a causal language model and gets its logits at a batch's response positions alone, [k, vocabulary].

    The choice is made where the hidden states enter the output layer, whatever the architecture does around it; the
    rest of the logits, often the largest tensor of all, is never computed. A model without such a layer gives all.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model = model
        self._places: tuple[Tensor, Tensor] | None = None
        output = model.get_output_embeddings()
        if output is not None:
            output.register_forward_pre_hook(self._choose)

    def __call__(self, batch: Batch) -> Tensor:
        places = self._places = self._tensor(batch.rows), self._tensor(batch.columns)
        # Padding is on the right, where a causal model cannot look, so no mask is needed and the fast path is taken.
        logits: Tensor = self._model(input_ids=self._tensor(batch.tokens), use_cache=False).logits
        chosen, self._places = self._places is None, None
        return (logits.squeeze(0) if chosen else logits[places]).float()

    def cross_entropy(self, batch: Batch) -> Tensor:
        """Weighted sum over the batch's response tokens; the weights add up to one over a step."""
        losses = functional.cross_entropy(self(batch), self._tensor(batch.targets), reduction="none")
        return (losses * self._tensor(batch.weights)).sum()

    def divergence(self, batch: Batch) -> Tensor:
        """KL(base ‖ adapted), weighted likewise. The base is the same model without its adapter."""
        with torch.no_grad(), self._model.disable_adapter():
            base = functional.log_softmax(self(batch), dim=-1)
        adapted = functional.log_softmax(self(batch), dim=-1)
        losses = functional.kl_div(adapted, base, reduction="none", log_target=True).sum(-1)
        return (losses * self._tensor(batch.weights)).sum()

    def _choose(self, _layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._places is None:
            return None
        places, self._places = self._places, None
        hidden, *rest = inputs
        return (hidden[places].unsqueeze(0), *rest)

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)

"""What a run with PyTorch has learned so far: a PEFT adapter and its AdamW, as a checkpoint and as finished adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from genome import lora
from genome.training import TrainingSettings

STATE = "state.safetensors"
"""A checkpoint's one file: ``parameter/NAME``; ``exp_avg/NAME``, ``exp_avg_sq/NAME``, ``step/NAME`` of what has had a
gradient; ``random``; and where there is an average ``average/NAME``."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdapterState:
    """The trainable part of a PEFT model, and its optimizer."""

    def __init__(self, model: PeftModel, settings: TrainingSettings) -> None:
        self.model = model
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self._average: list[Tensor] = []
        """Of ``parameters``, in order; empty where it would be the same."""

    def stepped(self, average_decay: float | None) -> None:
        """To be called after each step of the optimizer: takes its weights into the average."""
        newest = [parameter.detach() for parameter in self.parameters.values()]
        if average_decay is None:
            self._average = []
        elif self._average:
            torch._foreach_lerp_(self._average, newest, 1 - average_decay)
        else:
            self._average = [weights.clone() for weights in newest]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In here the parameters are the average."""
        newest = [parameter.data for parameter in self.parameters.values()]
        for parameter, weights in zip(self.parameters.values(), self._average or newest, strict=True):
            parameter.data = weights
        try:
            yield
        finally:
            for parameter, weights in zip(self.parameters.values(), newest, strict=True):
                parameter.data = weights

    def save(self, directory: Path) -> None:
        tensors = {"random": torch.get_rng_state()}
        for name, parameter in self.parameters.items():
            tensors[f"parameter/{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value
        tensors |= {f"average/{name}": weights for name, weights in zip(self.parameters, self._average, strict=False)}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, directory / STATE)

    def restore(self, directory: Path) -> None:
        tensors = load_file(directory / STATE)
        torch.set_rng_state(tensors["random"])
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"parameter/{name}"])
            found = {key: tensors.get(f"{key}/{name}") for key in MOMENTS}
            # AdamW keeps nothing for what never had a gradient: layers of an encoder for pictures, for example.
            moments = {key: value.to(parameter.device) for key, value in found.items() if value is not None}
            self.optimizer.state.pop(parameter, None)
            if moments:
                self.optimizer.state[parameter] = moments
        average = [f"average/{name}" for name in self.parameters]
        self._average = [tensors[name].to(self.model.device) for name in average if name in tensors]

    def export(self, directory: Path) -> None:
        """PEFT's own names and config, in float32."""
        with self.averaged():
            weights = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
        save_file(weights, directory / lora.PEFT_WEIGHTS, {"format": "pt"})
        config = self.model.peft_config["default"]
        config.inference_mode = True
        if not isinstance(config.target_modules, str):  # one that is a pattern stays; a set's order differs each time
            config.target_modules = sorted(config.target_modules)
        config.save_pretrained(directory)

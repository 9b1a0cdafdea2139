"""Steps with PyTorch: any transformers causal model, PEFT's LoRA on all its linear layers, AdamW."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.utils import logging

from daemon.trainers.batches import Batch, batches
from daemon.trainers.contract import Course, Lesson, Losses
from daemon.trainers.examples import Tokens
from daemon.trainers.torch_lora.losses import ResponseLogits
from daemon.trainers.torch_lora.state import AdapterState
from genome import bases
from genome.errors import InvalidConfig
from genome.jobs import Job, TrainingSettings


class TorchTrainer:
    """A PEFT model and its optimizer; `daemon.trainers.contract.Trainer`."""

    def __init__(self, model: PeftModel, settings: TrainingSettings) -> None:
        self._state, self._settings = AdapterState(model, settings), settings
        self._logits = ResponseLogits(model)

    def train(self, course: Course) -> None:
        for lesson in course.remaining():
            if not course.made(self._step(lesson)):
                break

    def _step(self, lesson: Lesson) -> Losses:
        optimizer, parameters = self._state.optimizer, self._state.parameters.values()
        optimizer.zero_grad(set_to_none=True)
        cross_entropy = _backward(self._logits.cross_entropy, lesson.signals)
        divergence = _backward(self._logits.divergence, lesson.anchors, self._settings.anchor_weight)
        nn.utils.clip_grad_norm_(parameters, self._settings.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = lesson.learning_rate
        optimizer.step()
        return Losses(cross_entropy, divergence if lesson.anchors else None)

    def save(self, directory: Path) -> None:
        self._state.save(directory)

    def restore(self, directory: Path) -> None:
        self._state.restore(directory)

    def export(self, directory: Path) -> None:
        self._state.export(directory)


def _backward(loss_of: Callable[[Batch], Tensor], examples: Sequence[Tokens], weight: float = 1.0) -> float:
    """Adds the gradients of ``weight`` times the examples' loss; returns the loss itself."""
    total = 0.0
    for batch in batches(examples):
        loss = loss_of(batch)
        (weight * loss).backward()
        total += loss.item()
    return total


def load(job: Job) -> TorchTrainer:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(job.settings.threads)
    torch.manual_seed(job.settings.seed)
    base = _base(Path(job.base), _device())
    model = _continued(base, job) if job.parent_path else _new(base, job)
    return TorchTrainer(model.train(), job.settings)


def _base(path: Path, device: torch.device) -> nn.Module:
    """The frozen base. A quantised one is laid on its device as it is read, and PEFT lays its own layers over it."""
    quantised = bases.quantisation(path).method != "none"
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            path, dtype=_dtype(device), device_map={"": device} if quantised else None
        )
    except ImportError as error:  # a package for a method that is not known here
        raise InvalidConfig(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model if quantised else model.to(device)


def _new(base: nn.Module, job: Job) -> PeftModel:
    config = LoraConfig(
        r=job.settings.rank,
        lora_alpha=job.settings.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=job.copy_of or job.base,
    )
    return get_peft_model(base, config)


def _continued(base: nn.Module, job: Job) -> PeftModel:
    model = PeftModel.from_pretrained(base, job.parent_path, is_trainable=True)
    config = model.peft_config["default"]
    if (config.r, config.lora_alpha) != (job.settings.rank, job.settings.alpha):
        print(f"rank {config.r} and alpha {config.lora_alpha:g} are the parent's and stay", file=sys.stderr)
    return model


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(device: torch.device) -> torch.dtype:
    """Of the frozen base; the LoRA is float32 everywhere."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32

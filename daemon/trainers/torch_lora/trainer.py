"""Steps with PyTorch: any transformers causal model, PEFT's LoRA on its linear layers, AdamW."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.utils import logging

from daemon.trainers import passes
from daemon.trainers.batches import Batch
from daemon.trainers.contract import Course, Lesson, Losses
from daemon.trainers.examples import Distributions
from daemon.trainers.torch_lora import attention, linear, targets
from daemon.trainers.torch_lora.losses import Objective, ResponseLogits
from daemon.trainers.torch_lora.state import AdapterState
from genome import bases, blas
from genome.errors import InvalidConfig
from genome.training import Job, TrainingSettings


class TorchTrainer:
    """A PEFT model and its optimizer; `daemon.trainers.contract.Trainer`."""

    def __init__(self, model: PeftModel, settings: TrainingSettings, packed: bool) -> None:
        self._model, self.padded, self.pass_tokens = model, not packed, passes.tokens()
        self._state, self._settings = AdapterState(model, settings), settings
        self._objective = Objective(ResponseLogits(model, packed), settings)

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        with self._state.averaged():
            return self._objective.log_probabilities(batch)

    def distributions(self, batch: Batch, of_base: bool) -> Distributions:
        if not of_base:
            return self._objective.distributions(batch)
        with self._model.disable_adapter():
            return self._objective.distributions(batch)

    def train(self, course: Course) -> None:
        for lesson in course.remaining():
            if not course.made(self._step(lesson)):
                break

    def _step(self, lesson: Lesson) -> Losses:
        optimizer, parameters = self._state.optimizer, self._state.parameters.values()
        optimizer.zero_grad(set_to_none=True)
        losses = self._objective.backward(lesson, self.pass_tokens)
        nn.utils.clip_grad_norm_(parameters, self._settings.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = lesson.learning_rate
        optimizer.step()
        self._state.stepped(lesson.average_decay)
        return losses

    def save(self, directory: Path) -> None:
        self._state.save(directory)

    def restore(self, directory: Path) -> None:
        self._state.restore(directory)

    def export(self, directory: Path) -> None:
        self._state.export(directory)


def load(job: Job) -> TorchTrainer:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(job.settings.threads)
    torch.manual_seed(job.settings.seed)
    base = _base(Path(job.base), job.settings, _device())
    packed = attention.install(base, job.settings.max_tokens)
    if not packed:
        print("this base cannot learn from rows without padding: its rows are padded", file=sys.stderr)
    model = _continued(base, job) if job.parent_path else _new(base, job)
    _without_dropout(model)
    linear.install(model)
    linear.apply_beside(model, job.beside)
    if packed:
        attention.spare(model)
    if passes.gradient_checkpointing():
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return TorchTrainer(model.train(), job.settings, packed)


def _base(path: Path, settings: TrainingSettings, device: torch.device) -> nn.Module:
    """The frozen base. A quantised one is laid on its device as it is read, and PEFT lays its own layers over it."""
    quantised = _is_quantised(path)
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            path, dtype=_dtype(path, settings, device), device_map={"": device} if quantised else None
        )
    except ImportError as error:  # a package for a method that is not known here
        raise InvalidConfig(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # bitsandbytes: measured once, it could not be trained on
            module.support_avx512bf16_for_cpu = False
    return model if quantised else model.to(device)


def _without_dropout(model: nn.Module) -> None:
    """Of the base, and of an adapter that had some: what is random would tell a teacher from itself, and a run from its
    continuation."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


def _new(base: nn.Module, job: Job) -> PeftModel:
    config = LoraConfig(
        r=job.settings.rank,
        lora_alpha=job.settings.alpha,
        target_modules=targets.names(base, _is_quantised(Path(job.base))),
        task_type="CAUSAL_LM",
        base_model_name_or_path=job.copy_of or job.base,
    )
    with targets.taken_as_they_are():
        return get_peft_model(base, config)


def _continued(base: nn.Module, job: Job) -> PeftModel:
    with targets.taken_as_they_are():
        model = PeftModel.from_pretrained(base, job.parent_path, is_trainable=True)
    config = model.peft_config["default"]
    if (config.r, config.lora_alpha) != (job.settings.rank, job.settings.alpha):
        print(f"rank {config.r} and alpha {config.lora_alpha:g} are the parent's and stay", file=sys.stderr)
    return model


def _is_quantised(path: Path) -> bool:
    return bases.quantisation(path).method != "none"


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(path: Path, settings: TrainingSettings, device: torch.device) -> torch.dtype:
    """Of the frozen base; the LoRA is float32 everywhere."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    if bases.dtype(path) == "float32":
        return torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)  # before Ampere it is, by float32
    else:
        has = getattr(torch.cpu, "get_capabilities", dict)()
        native = device.type == "cpu" and any(has.get(name) for name in blas.BF16_INSTRUCTIONS)
    return torch.bfloat16 if native else torch.float32

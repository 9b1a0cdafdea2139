"""Steps with Unsloth's FastLanguageModel, made by TRL's SFTTrainer on the lessons it is given."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import unsloth  # before transformers, which it changes
from datasets import Dataset
from peft import LoraConfig, PeftModel
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from daemon.trainers import examples as tokenised
from daemon.trainers import passes
from daemon.trainers.batches import Batch
from daemon.trainers.contract import Course, Lesson, Losses
from daemon.trainers.examples import Distributions
from daemon.trainers.torch_lora import targets
from daemon.trainers.torch_lora.losses import Objective, ResponseLogits
from daemon.trainers.torch_lora.state import AdapterState
from genome import lora
from genome.errors import InvalidAdapter
from genome.training import Job, TrainingSettings

IGNORED = -100
"""The label of a token that no loss is taken on, in transformers."""


class UnslothTrainer:
    """A model of Unsloth's with a PEFT adapter; `daemon.trainers.contract.Trainer`."""

    padded = True
    pass_tokens = passes.tokens()

    def __init__(self, model: PeftModel, tokenizer: Any, settings: TrainingSettings) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._state = AdapterState(model, settings)
        self._objective, self._settings = Objective(ResponseLogits(model, packed=False), settings), settings

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        with _half(self._model, self._settings), self._state.averaged():
            return self._objective.log_probabilities(batch)

    def distributions(self, batch: Batch, of_base: bool) -> Distributions:
        with _half(self._model, self._settings), self._model.disable_adapter() if of_base else nullcontext():
            return self._objective.distributions(batch)

    def train(self, course: Course) -> None:
        with tempfile.TemporaryDirectory(prefix="genome-trl-") as scratch:
            _LessonTrainer(self._state, self._objective, self._tokenizer, course, scratch).train()

    def save(self, directory: Path) -> None:
        self._state.save(directory)

    def restore(self, directory: Path) -> None:
        self._state.restore(directory)

    def export(self, directory: Path) -> None:
        self._state.export(directory)


class _LessonTrainer(SFTTrainer):
    """An SFTTrainer whose batches are lessons: with weights, and anchors that pull towards their teachers."""

    def __init__(self, state: AdapterState, objective: Objective, tokenizer: Any, course: Course, scratch: str) -> None:
        self._adapter, self._course, self._objective = state, course, objective
        self._losses = Losses(0.0)
        first, peak = course.done, course.settings.learning_rate
        rate = LambdaLR(state.optimizer, lambda step: course.learning_rate(first + step) / peak)
        super().__init__(
            model=state.model,
            args=_arguments(state.model, course, scratch),
            train_dataset=_dataset(course),
            processing_class=tokenizer,
            optimizers=(state.optimizer, rate),
            callbacks=[_Report(self)],
        )

    def get_train_dataloader(self) -> Iterable[dict[str, Lesson]]:
        return [{"lesson": self._course.lesson(number)} for number in range(self._course.done, len(self._course))]

    def training_step(self, model: Any, inputs: dict[str, Lesson], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        with self.compute_loss_context_manager():
            self._losses = self._objective.backward(inputs["lesson"], passes.tokens(), self.accelerator.backward)
        return torch.tensor(self._losses.cross_entropy)

    def report(self) -> bool:
        """Tells of the step just made; False: make no more."""
        self._adapter.stepped(self._course.average_decay(self._course.done))
        return self._course.made(self._losses)


class _Report(TrainerCallback):
    def __init__(self, trainer: _LessonTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = not self._trainer.report()


def _half(model: Any, settings: TrainingSettings) -> torch.autocast:
    """As the library's trainer computes a step."""
    dtype = _half_type(model, settings)
    return torch.autocast("cuda", dtype, enabled=dtype is not None)


def _half_type(model: Any, settings: TrainingSettings) -> torch.dtype | None:
    """What a GPU multiplies in; None where that is single precision.

    As Unsloth has chosen for the base, since it refuses another: PyTorch also counts a bfloat16 that is emulated, and
    some bases Unsloth keeps from float16, which would overflow.
    """
    forced = getattr(model, "_unsloth_forced_float32", False)
    if not torch.cuda.is_available() or settings.dtype == "float32" or forced:
        return None
    return torch.bfloat16 if unsloth.is_bfloat16_supported() else torch.float16


def _arguments(model: Any, course: Course, scratch: str) -> SFTConfig:
    half = _half_type(model, course.settings)
    return SFTConfig(
        output_dir=scratch,
        max_steps=len(course) - course.done,
        per_device_train_batch_size=1,  # a lesson
        max_grad_norm=course.settings.gradient_clip,
        seed=course.settings.seed,
        bf16=half is torch.bfloat16,
        fp16=half is torch.float16,
        gradient_checkpointing=bool(_checkpointing()),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _dataset(course: Course) -> Dataset:
    """What SFTTrainer wants to see; it learns from the lessons."""
    signals = course.examples.signals
    return Dataset.from_dict(
        {
            "input_ids": [signal.prompt + signal.response for signal in signals],
            "labels": [[IGNORED] * len(signal.prompt) + signal.response for signal in signals],
        }
    )


def load(job: Job) -> UnslothTrainer:
    """In 4 bits where bitsandbytes and a GPU are there, else in 16 bits on a GPU and in 32 on a CPU."""
    settings, cuda = job.settings, torch.cuda.is_available()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        job.base,
        max_seq_length=min(settings.max_tokens, tokenised.context_tokens(Path(job.base))),
        dtype=getattr(torch, settings.dtype) if settings.dtype != "auto" else None if cuda else torch.float32,
        load_in_4bit=cuda and find_spec("bitsandbytes") is not None,
        use_gradient_checkpointing=_checkpointing(),
        local_files_only=True,
    )
    with targets.taken_as_they_are():
        model = unsloth.FastLanguageModel.get_peft_model(
            model,
            **_shape(job, model),
            lora_dropout=0.0,
            use_gradient_checkpointing=_checkpointing(),
            random_state=settings.seed,
        )
    model.peft_config["default"].base_model_name_or_path = job.copy_of or job.base
    if job.parent_path:
        _take_over(model, Path(job.parent_path))
    for entry in job.beside:
        print(f"{entry.adapter} is not applied beside: Unsloth's layers have no place for it", file=sys.stderr)
    return UnslothTrainer(model, tokenizer, settings)


def _checkpointing() -> bool | str:
    """Unsloth's own kind keeps what it saves in the host's memory; on a CPU that would save nothing."""
    return "unsloth" if torch.cuda.is_available() else passes.gradient_checkpointing()


def _shape(job: Job, base: Any) -> dict[str, Any]:
    """Rank, alpha and layers: the parent's, or the settings' and those that can be served."""
    if not job.parent_path:
        layers = "all-linear" if targets.is_plain(base) else targets.names(base, quantised=True)
        return {"r": job.settings.rank, "lora_alpha": job.settings.alpha, "target_modules": layers}
    parent = LoraConfig.from_pretrained(job.parent_path)
    names = ("r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern")
    return {name: getattr(parent, name) for name in names}


def _take_over(model: PeftModel, parent: Path) -> None:
    """Puts the parent's weights into a LoRA of its shape."""
    strange = set_peft_model_state_dict(model, load_file(parent / lora.PEFT_WEIGHTS)).unexpected_keys
    if strange:
        raise InvalidAdapter(f"{parent} adapts {strange[0]}, which the base has no place for", lora.ANOTHER_BASE)

"""Steps with Unsloth's FastLanguageModel, made by TRL's SFTTrainer on the lessons it is given."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
from daemon.trainers.batches import Batch, batches
from daemon.trainers.contract import Course, Lesson, Losses
from daemon.trainers.torch_lora.losses import ResponseLogits
from daemon.trainers.torch_lora.state import AdapterState
from genome import lora
from genome.errors import InvalidAdapter
from genome.jobs import Job, TrainingSettings

IGNORED = -100
"""The label of a token that no loss is taken on, in transformers."""


class UnslothTrainer:
    """A model of Unsloth's with a PEFT adapter; `daemon.trainers.contract.Trainer`."""

    def __init__(self, model: PeftModel, tokenizer: Any, settings: TrainingSettings) -> None:
        self._tokenizer = tokenizer
        self._state = AdapterState(model, settings)

    def train(self, course: Course) -> None:
        with tempfile.TemporaryDirectory(prefix="genome-trl-") as scratch:
            _LessonTrainer(self._state, self._tokenizer, course, scratch).train()

    def save(self, directory: Path) -> None:
        self._state.save(directory)

    def restore(self, directory: Path) -> None:
        self._state.restore(directory)

    def export(self, directory: Path) -> None:
        self._state.export(directory)


class _LessonTrainer(SFTTrainer):
    """An SFTTrainer whose batches are lessons: with weights, and anchors that pull towards the base."""

    def __init__(self, state: AdapterState, tokenizer: Any, course: Course, scratch: str) -> None:
        self._course, self._logits = course, ResponseLogits(state.model)
        self._sums: dict[bool, float] = {}
        first, peak = course.done, course.settings.learning_rate
        rate = LambdaLR(state.optimizer, lambda step: course.learning_rate(first + step) / peak)
        super().__init__(
            model=state.model,
            args=_arguments(course, scratch),
            train_dataset=_dataset(course),
            processing_class=tokenizer,
            optimizers=(state.optimizer, rate),
            callbacks=[_Report(self)],
        )

    def get_train_dataloader(self) -> Iterable[dict[str, Lesson]]:
        return [{"lesson": self._course.lesson(number)} for number in range(self._course.done, len(self._course))]

    def training_step(self, model: Any, inputs: dict[str, Lesson], num_items_in_batch: Any = None) -> Tensor:
        lesson, self._sums = inputs["lesson"], {False: 0.0, True: 0.0}
        model.train()
        for anchors, examples in ((False, lesson.signals), (True, lesson.anchors)):
            for batch in batches(examples):
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, {"batch": batch, "anchors": anchors})
                weight = self._course.settings.anchor_weight if anchors else 1.0
                self.accelerator.backward(weight * loss)
                self._sums[anchors] += loss.item()
        return torch.tensor(self._sums[False])

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        batch: Batch = inputs["batch"]
        return self._logits.divergence(batch) if inputs["anchors"] else self._logits.cross_entropy(batch)

    def report(self) -> bool:
        """Tells of the step just made; False: make no more."""
        anchors = bool(self._course.lesson(self._course.done).anchors)
        return self._course.made(Losses(self._sums[False], self._sums[True] if anchors else None))


class _Report(TrainerCallback):
    def __init__(self, trainer: _LessonTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = not self._trainer.report()


def _arguments(course: Course, scratch: str) -> SFTConfig:
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=scratch,
        max_steps=len(course) - course.done,
        per_device_train_batch_size=1,  # a lesson
        max_grad_norm=course.settings.gradient_clip,
        seed=course.settings.seed,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        fp16=cuda and not torch.cuda.is_bf16_supported(),
        gradient_checkpointing=cuda,
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
        dtype=None if cuda else torch.float32,
        load_in_4bit=cuda and find_spec("bitsandbytes") is not None,
        use_gradient_checkpointing="unsloth" if cuda else False,
        local_files_only=True,
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        **_shape(job),
        lora_dropout=0.0,
        use_gradient_checkpointing="unsloth" if cuda else False,
        random_state=settings.seed,
    )
    if job.parent_path:
        _take_over(model, Path(job.parent_path))
    return UnslothTrainer(model, tokenizer, settings)


def _shape(job: Job) -> dict[str, Any]:
    """Rank, alpha and layers: the parent's, or the settings'."""
    if not job.parent_path:
        return {"r": job.settings.rank, "lora_alpha": job.settings.alpha, "target_modules": "all-linear"}
    parent = LoraConfig.from_pretrained(job.parent_path)
    names = ("r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern")
    return {name: getattr(parent, name) for name in names}


def _take_over(model: PeftModel, parent: Path) -> None:
    """Puts the parent's weights into a LoRA of its shape."""
    strange = set_peft_model_state_dict(model, load_file(parent / lora.PEFT_WEIGHTS)).unexpected_keys
    if strange:
        raise InvalidAdapter(f"{parent} adapts {strange[0]}, which the base has no place for")

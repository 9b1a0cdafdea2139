"""Optimizer steps of one process and one thread: the torch trainer's, PEFT's with padded batches, and TRL's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks import corrections
from benchmarks.measure import in_turns, seconds
from daemon.trainers import child, schedule, torch_lora
from daemon.trainers.contract import Course, Lesson, Losses
from daemon.trainers.examples import Examples, Tokens
from genome.training import Job

IGNORED = -100
"""The label of a token that no loss is taken on, in transformers."""
SAME_LOSS = 1e-3
"""Nats by which the first losses of two sides on one batch may differ."""


@dataclass(frozen=True)
class Turn:
    """``seconds`` of all steps, without loading; ``first_loss`` in nats."""

    seconds: float
    first_loss: float


@dataclass
class Work:
    """One job's examples: what every side learns from, once each."""

    job: Job
    examples: Examples

    @property
    def signals(self) -> list[Tokens]:
        return self.examples.signals

    @property
    def tokens(self) -> int:
        """Real ones, prompts included."""
        return sum(map(len, self.signals))

    @cached_property
    def lessons(self) -> list[list[Tokens]]:
        """The batches the trainer deals."""
        course = Course(self.examples, self.job.settings, lambda lesson, losses: True)
        return [course.lesson(number).signals for number in range(len(course))]

    @cached_property
    def shuffled(self) -> list[list[Tokens]]:
        """As many batches, in random order."""
        return corrections.shuffled(self.signals, len(self.lessons))

    def model(self) -> Any:
        torch.set_num_threads(self.job.settings.threads)
        torch.manual_seed(self.job.settings.seed)
        return AutoModelForCausalLM.from_pretrained(self.job.base, dtype=torch.float32)

    def lora(self) -> LoraConfig:
        settings = self.job.settings
        return LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )


def ours(work: Work) -> Turn:
    """The trainer's own steps, as its process makes them."""
    losses: list[float] = []

    def made(_lesson: Lesson, found: Losses) -> bool:
        losses.append(found.cross_entropy)
        return True

    course, trainer = Course(work.examples, work.job.settings, made), torch_lora.load(work.job)
    took = seconds(lambda: trainer.train(course))
    return Turn(took, losses[0])


def peft_padded(work: Work, batches: Sequence[Sequence[Tokens]]) -> Turn:
    """Steps of PEFT on its own."""
    model, losses = get_peft_model(work.model(), work.lora()), []
    took = seconds(lambda: losses.extend(peft_steps(model, work, batches)))
    return Turn(took, losses[0])


def peft_steps(model: PeftModel, work: Work, batches: Sequence[Sequence[Tokens]]) -> list[float]:
    """PEFT as its documentation has it: padded batches with a mask, labels of -100, logits everywhere, AdamW.

    Returns the loss of each step. The learning rate follows our schedule.
    """
    parameters = [each for each in model.train().parameters() if each.requires_grad]
    settings, losses = work.job.settings, []
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    for number, batch in enumerate(batches):
        optimizer.zero_grad(set_to_none=True)
        loss = model(**_padded(batch)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(number, len(batches), settings)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _padded(batch: Sequence[Tokens]) -> dict[str, torch.Tensor]:
    shape = len(batch), max(map(len, batch))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for row, example in enumerate(batch):
        start, end = len(example.prompt), len(example)
        ids[row, :end] = torch.tensor(example.prompt + example.response)
        labels[row, start:end] = ids[row, start:end]
        mask[row, :end] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def trl_settings(work: Work) -> dict[str, dict[str, Any]]:
    """Ways to make the same steps with TRL; all leave out logits where nothing is learned, as it does by itself.

    Packed rows hold as many tokens as a batch does, one row a step.
    """
    row = max(-(-work.tokens // len(work.lessons)), *map(len, work.signals))
    batch = {"per_device_train_batch_size": work.job.settings.batch_size, "max_length": None}
    return {
        "padded": batch,
        "padded, grouped by length": batch | {"train_sampling_strategy": "group_by_length"},
        "padding-free": batch | {"padding_free": True},
        "packed": {"per_device_train_batch_size": 1, "packing": True, "max_length": row},
    }


class _Timed(SFTTrainer):
    """Keeps the first loss, and when the first step began and the last one ended."""

    def __init__(self, **rest: Any) -> None:
        self.losses: list[float] = []
        self.clock = _Clock()
        super().__init__(callbacks=[self.clock], **rest)

    def training_step(self, *given: Any, **rest: Any) -> torch.Tensor:
        loss = super().training_step(*given, **rest)
        if not self.losses:
            self.losses.append(loss.item())
        return loss


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = self.began or time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = time.perf_counter()


def trl_sft(work: Work, chosen: dict[str, Any]) -> Turn:
    """TRL's SFTTrainer in float32 without checkpointing of activations, loss on responses alone."""
    settings = work.job.settings
    rows = {
        "input_ids": [each.prompt + each.response for each in work.signals],
        "labels": [[IGNORED] * len(each.prompt) + each.response for each in work.signals],
    }
    with tempfile.TemporaryDirectory(prefix="trl-") as scratch:
        arguments = SFTConfig(
            output_dir=scratch, num_train_epochs=1, learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine", warmup_steps=settings.warmup_fraction, max_grad_norm=settings.gradient_clip,
            weight_decay=settings.weight_decay, seed=settings.seed, bf16=False, fp16=False,
            gradient_checkpointing=False, save_strategy="no", logging_strategy="no", report_to="none",
            disable_tqdm=True, **chosen,
        )  # fmt: skip
        trainer = _Timed(
            model=work.model(), args=arguments, train_dataset=Dataset.from_dict(rows), peft_config=work.lora(),
            processing_class=AutoTokenizer.from_pretrained(work.job.base),
        )  # fmt: skip
        trainer.train()
    return Turn(trainer.clock.ended - trainer.clock.began, trainer.losses[0])


@dataclass(frozen=True)
class Found:
    """Of one model. Medians of seconds by side, over the same examples."""

    took: dict[str, float]
    first_losses: dict[str, float]
    tokens: int
    padding: float
    trl: str
    """TRL's fastest settings here."""

    def rate(self, side: str) -> float:
        """Real tokens a second."""
        return self.tokens / self.took[side]


def compare(work: Work, rounds: int, sides: Sequence[str]) -> Found:
    """Our steps, and of ``peft`` and ``trl`` those that are asked for, in turns.

    ``peft``: in shuffled batches, as anybody trains, and beside it (``same``) in the very batches of ours, whose first
    loss must be ours.
    """
    child.before_importing()  # every side gets what a trainer process sets for itself
    losses: dict[str, float] = {}
    ways = trl_settings(work)
    best = min(ways, key=lambda way: trl_sft(work, ways[way]).seconds) if "trl" in sides else ""

    def turn(name: str, made: Turn) -> float:
        losses[name] = made.first_loss
        return made.seconds

    every = {
        "ours": lambda: turn("ours", ours(work)),
        "peft": lambda: turn("peft", peft_padded(work, work.shuffled)),
        "same": lambda: turn("same", peft_padded(work, work.lessons)),
        "trl": lambda: turn("trl", trl_sft(work, ways[best])),
    }
    wanted = {"ours", *sides} | ({"same"} if "peft" in sides else set())
    took = in_turns({name: side for name, side in every.items() if name in wanted}, rounds)
    difference = abs(losses["ours"] - losses.get("same", losses["ours"]))
    if difference > SAME_LOSS:
        raise RuntimeError(f"the sides learn different things: their first losses differ by {difference:.4f} nats")
    return Found(took, losses, work.tokens, corrections.padding_ratio(work.shuffled), best)

"""Steps with MLX: mlx-lm's models and LoRA layers, AdamW, and our own loop, because mlx-lm's cannot go on exactly."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import AdamW, clip_grad_norm
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.utils import load_model
from safetensors import safe_open

from daemon.trainers import passes
from daemon.trainers.batches import Batch, batches
from daemon.trainers.contract import Course, Lesson, Losses
from daemon.trainers.examples import Distributions, Tokens
from daemon.trainers.mlx_lora.layers import LoraLinear, array
from daemon.trainers.mlx_lora.losses import Objective, ResponseLogits
from genome import bases, lora, mlx_format, places, tensors
from genome.errors import InvalidAdapter, InvalidConfig
from genome.training import Beside, Job, TrainingSettings

LORA, AVERAGE, OPTIMIZER = "lora.safetensors", "average.safetensors", "optimizer.safetensors"
"""Files of a checkpoint; the random state lies in the first, under `RANDOM`."""
RANDOM = "random"


class MlxTrainer:
    """An mlx-lm model with LoRA layers and its optimizer; `daemon.trainers.contract.Trainer`."""

    padded = True
    pass_tokens = passes.tokens()

    def __init__(self, model: nn.Module, layers: dict[str, LoraLinear], base: str, settings: TrainingSettings) -> None:
        self.model, self._layers, self._base, self._settings = model, layers, base, settings
        self._adapted = [module for module in model.modules() if isinstance(module, LoraLinear)]
        self._scales = {path: layer.scale for path, layer in layers.items()}
        self._objective = Objective(ResponseLogits(model), settings)
        self._optimizer = AdamW(0.0, weight_decay=settings.weight_decay, bias_correction=True)
        self._average: Any = None
        """Of the trainable parameters, as their tree; None where it would be the same."""

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        self.model.eval()
        with self._averaged():
            found = self._objective.log_probabilities(batch)
        self.model.train()
        return found

    def distributions(self, batch: Batch, of_base: bool) -> Distributions:
        self.model.eval()
        for layer in self._adapted:
            layer.on = not of_base
        found = self._objective.distributions(batch)
        for layer in self._adapted:
            layer.on = True
        self.model.train()
        return found

    def train(self, course: Course) -> None:
        for lesson in course.remaining():
            if not course.made(self._step(lesson)):
                break

    def _step(self, lesson: Lesson) -> Losses:
        (cross_entropy, preference), gradients = self._learn(lesson.signals)
        divergence, pull = self._keep(lesson.held)
        gradients, _ = clip_grad_norm(_sum(gradients, pull), self._settings.gradient_clip)
        self._optimizer.learning_rate = lesson.learning_rate
        self._optimizer.update(self.model, gradients)
        newest = self.model.trainable_parameters()
        self._average = _towards(self._average, newest, lesson.average_decay)
        mx.eval(newest, self._optimizer.state, self._average)
        return Losses.of(lesson, cross_entropy, divergence, preference)

    def _learn(self, signals: Sequence[Tokens]) -> tuple[tuple[float, float], Any]:
        """Cross-entropy and preference, and the gradients of both as a tree."""
        terms, gradients = [0.0, 0.0], None
        for batch in batches(signals, self.pass_tokens, self.padded):
            (_, found), more = nn.value_and_grad(self.model, self._objective.learn)(batch)
            gradients = _sum(gradients, more)
            mx.eval(found, gradients)
            terms = [term + value.item() for term, value in zip(terms, found, strict=True)]
        return (terms[0], terms[1]), gradients

    def _keep(self, held: Sequence[Sequence[Tokens]]) -> tuple[float, Any]:
        """Divergence from the teachers, and its gradients as a tree, times the anchors' weight."""
        total, gradients = 0.0, None
        for batch in (each for part in held for each in batches(part, self.pass_tokens, self.padded)):
            loss, more = nn.value_and_grad(self.model, self._objective.keep)(batch)
            gradients = _sum(gradients, tree_map(lambda gradient: self._settings.anchor_weight * gradient, more))
            mx.eval(loss, gradients)
            total += loss.item()
        return total, gradients

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """In here the LoRA is the average of its last steps."""
        newest = self.model.trainable_parameters()
        self.model.update(self._average or newest)
        try:
            yield
        finally:
            self.model.update(newest)

    def save(self, directory: Path) -> None:
        weights = dict(tree_flatten(self.model.trainable_parameters()))
        mx.save_safetensors(str(directory / LORA), {**weights, RANDOM: mx.random.state[0]})
        if self._average:
            mx.save_safetensors(str(directory / AVERAGE), dict(tree_flatten(self._average)))
        mx.save_safetensors(str(directory / OPTIMIZER), dict(tree_flatten(self._optimizer.state)))

    def restore(self, directory: Path) -> None:
        weights = mx.load(str(directory / LORA))
        high, low = weights.pop(RANDOM).tolist()
        mx.random.seed(high << 32 | low)
        self.model.load_weights(list(weights.items()), strict=False)
        self._optimizer.state = tree_unflatten(list(mx.load(str(directory / OPTIMIZER)).items()))
        average = directory / AVERAGE
        self._average = tree_unflatten(list(mx.load(str(average)).items())) if average.exists() else None

    def export(self, directory: Path) -> None:
        """mlx keeps A as [in, r] and B as [r, out], where PEFT's are the other way round."""
        with self._averaged():
            modules = {
                path: lora.Factors(_tensor(layer.lora_a.T), _tensor(layer.lora_b.T), self._scales[path])
                for path, layer in self._layers.items()
            }
        lora.write_peft(directory, lora.Lora(modules, digest=""), self._base)


def load(job: Job) -> MlxTrainer:
    settings, base = job.settings, Path(job.base)
    mx.random.seed(settings.seed)
    try:
        model, _ = load_model(base, model_config=mlx_format.config(base))
    except ValueError as error:
        raise InvalidConfig(f"mlx-lm cannot load {base}: {error}", 'Try training.trainer = "torch"') from error
    model.freeze()
    if settings.dtype != "auto":
        model.set_dtype(getattr(mx, settings.dtype))
    elif mx.default_device() == mx.cpu:
        model.set_dtype(mx.float32)  # its BLAS knows nothing smaller
    layers = _continued(model, job.parent_path) if job.parent_path else _new(model, job)
    _check_names(base, layers)
    frozen = _apply_beside(_linears(model), layers, job.beside)
    model.update_modules(tree_unflatten([*layers.items(), *frozen.items()]))
    if passes.gradient_checkpointing():
        for block in {type(block): block for block in model.layers}.values():  # it changes the class
            grad_checkpoint(block)
    model.train()
    return MlxTrainer(model, layers, job.copy_of or job.base, settings)


def _linears(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of the decoder's blocks by path."""
    blocks = {id(module) for block in model.layers for module in block.modules()}
    kinds = (nn.Linear, nn.QuantizedLinear)
    return {path: m for path, m in model.named_modules() if isinstance(m, kinds) and id(m) in blocks}


def _new(model: nn.Module, job: Job) -> dict[str, LoraLinear]:
    linears, settings = _linears(model), job.settings
    paths = places.adaptable(job.base, sorted(linears), (path for path, _ in model.named_modules()))
    return {path: LoraLinear(linears[path], settings.rank, settings.alpha / settings.rank) for path in paths}


def _continued(model: nn.Module, parent_path: str) -> dict[str, LoraLinear]:
    """The parent's rank and scale stay, per layer, whatever the settings say."""
    linears = _linears(model)
    layers = {}
    for path, factors in lora.read(Path(parent_path)).modules.items():
        if path not in linears:
            raise InvalidAdapter(f"{parent_path} adapts {path}, where the base has no linear layer", lora.ANOTHER_BASE)
        layer = LoraLinear(linears[path], factors.rank, factors.scaling)
        layer.lora_a, layer.lora_b = array(factors.a).T, array(factors.b).T
        layers[path] = layer
    print(f"continuing {parent_path}: its rank and alpha stay", file=sys.stderr)
    return layers


def _apply_beside(
    linears: dict[str, nn.Module], layers: dict[str, LoraLinear], entries: Sequence[Beside]
) -> dict[str, LoraLinear]:
    """Applies adapters wherever they are; returns the layers made for it where nothing learns."""
    frozen: dict[str, LoraLinear] = {}
    for entry in entries:
        for path, factors in lora.read(Path(entry.path)).modules.items():
            if path not in linears:
                raise InvalidAdapter(
                    f"{entry.adapter}, which is applied beside, adapts {path}, where the base has no linear layer",
                    lora.ANOTHER_BASE,
                )
            if path not in layers and path not in frozen:
                frozen[path] = LoraLinear(linears[path], rank=1, scale=0.0)
                frozen[path].freeze()
            (layers.get(path) or frozen[path]).apply_beside(factors, entry.scale)
    return frozen


def _check_names(base: Path, layers: dict[str, LoraLinear]) -> None:
    """mlx-lm may rename an architecture's layers on loading; an adapter with those names would fit nowhere else."""
    names: set[str] = set()
    for file in bases.weight_files(base):
        with safe_open(file, framework="numpy") as weights:
            names.update(weights.keys())
    strangers = [path for path in layers if f"{path}.weight" not in names]
    if strangers:
        raise InvalidConfig(
            f"mlx-lm calls layers of {base} {strangers[0]} and the like, which its files do not",
            'Train it with training.trainer = "torch"',
        )


def _towards(average: Any, newest: Any, decay: float | None) -> Any:
    """A tree of weights a step further towards the newest; None where it is the newest."""
    if decay is None:
        return None
    return tree_map(lambda old, new: new + decay * (old - new), average, newest) if average else newest


def _sum(left: Any, right: Any) -> Any:
    """Of two gradient trees, where None is nothing."""
    if left is None or right is None:
        return right if left is None else left
    return tree_map(mx.add, left, right)


def _tensor(array: mx.array) -> tensors.Tensor:
    return tensors.Tensor("F32", tuple(array.shape), np.array(array.astype(mx.float32)).tobytes())

"""`MlxEngine`: an mlx-lm model as the worker's engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import structlog
from mlx.utils import tree_map_with_path
from mlx_lm.utils import load_model

from genome import mlx_format
from genome.config import Worker
from genome.errors import GenomeError, InvalidConfig
from genome.lora import Lora
from inference_worker.engine import Facts, Likelihood, Question, Row, State, Terms, context_tokens
from inference_worker.engine_mlx.batched import BatchedDecoder
from inference_worker.engine_mlx.output import Output
from inference_worker.engine_mlx.rows import windows
from inference_worker.engine_mlx.selfcheck import Decoder, disagreement, references
from inference_worker.engine_mlx.slots import LoraWeights, Slots
from inference_worker.engine_mlx.solo import SoloDecoder
from inference_worker.text import TemplateTokenizer

log = structlog.get_logger()

DEVICES = {"cpu": mx.cpu, "gpu": mx.gpu, "mps": mx.gpu}


class MlxLogits:
    """`inference_worker.engine.Logits` over one array [rows, vocabulary] in single precision."""

    def __init__(self, logits: mx.array) -> None:
        self._logits = logits
        tokens, finite = mx.argmax(logits, axis=1), mx.isfinite(mx.logsumexp(logits, axis=1))
        mx.eval(logits, tokens, finite)
        self.greedy: list[int] = tokens.tolist()
        self.finite: list[bool] = finite.tolist()

    def row(self, index: int) -> np.ndarray:
        return np.array(self._logits)[index]


class MlxEngine:
    """One base model with its adapters' places and its rows.

    A thread has streams of its own in MLX, and what one thread has not evaluated no other can: whatever is made here
    is evaluated where it is made, and every thread is told the device.
    """

    def __init__(self, model: Any, tokenizer: TemplateTokenizer, context_tokens: int, device: mx.Device) -> None:
        self.tokenizer = tokenizer
        self._device = device
        with mx.stream(device):
            self._slots = Slots(model)
            output = Output(model, self._slots)
            self._decoder, notes = _decoder(model, output, self._slots, context_tokens)
            mx.eval(model)
        self.facts = Facts(
            name="mlx",
            device="gpu" if device == mx.gpu else "cpu",
            dtype=str(self._slots.dtype).removeprefix("mlx.core."),
            context_tokens=context_tokens,
            vocabulary=output.vocabulary,
            batched=not notes,
            notes=notes,
        )

    def size(self, lora: Lora) -> int:
        return self._slots.size(lora)

    def load(self, lora: Lora) -> LoraWeights:
        with mx.stream(self._device):
            return self._slots.load(lora)

    def forget(self) -> None:
        self._slots.forget()

    def open(self, terms: Terms) -> Row:
        with mx.stream(self._device):
            row: Row = self._decoder.open(terms)
        return row

    def close(self, row: Row) -> None:
        with mx.stream(self._device):
            self._decoder.close(row)

    def forward(self, work: Sequence[tuple[Any, Sequence[int]]]) -> MlxLogits:
        try:
            with mx.stream(self._device):
                logits = MlxLogits(self._decoder.forward(work))
        except Exception:
            for row, _ in work:
                row.damaged = True
            raise
        for (row, _), finite in zip(work, logits.finite, strict=True):
            row.damaged = row.damaged or not finite
        return logits

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        with mx.stream(self._device):
            answers: list[list[Likelihood]] = self._decoder.score(questions)
        return answers

    def likelihood(self, row: Row, tokens: Sequence[int]) -> Likelihood:
        with mx.stream(self._device):
            answer: Likelihood = self._decoder.likelihood(row, tokens)
        return answer

    def snapshot(self, row: Row, length: int) -> State:
        with mx.stream(self._device):
            state: State = self._decoder.snapshot(row, length)
        return state

    def restore(self, row: Row, state: State, length: int) -> None:
        with mx.stream(self._device):
            self._decoder.restore(row, state, length)


def load(base: Path, settings: Worker) -> MlxEngine:
    """Loads a causal language model. Raises InvalidConfig if it is none, or the device is not there."""
    device = _device(settings.device)
    with mx.stream(device):
        try:
            model, config = load_model(base, model_config=mlx_format.config(base))
            ends = config.get("eos_token_id")
            tokenizer = TemplateTokenizer(base, ends)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            complaint = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidConfig(f"{base} cannot be loaded as a language model: {complaint}") from error
        dtype = settings.dtype if settings.dtype != "auto" else "float32" if device == mx.cpu else "bfloat16"
        _cast(model, getattr(mx, dtype))
    text = config.get("text_config") or config
    context = context_tokens(text.get("max_position_embeddings"), settings)
    try:
        return MlxEngine(model, tokenizer, context, device)
    except GenomeError:
        raise
    except Exception as error:  # whatever the library raises over a base it loads but cannot run
        raise InvalidConfig(f"mlx-lm cannot run {base}: {type(error).__name__}: {error}") from error


def _cast(model: Any, dtype: mx.Dtype) -> None:
    """Gives the parameters a type, but for those the library wants as they are. A quantised base stays as it is."""
    if any(isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) for module in model.modules()):
        return
    may_change = getattr(model, "cast_predicate", lambda path: True)

    def cast(path: str, parameter: mx.array) -> mx.array:
        change = mx.issubdtype(parameter.dtype, mx.floating) and may_change(path)
        return parameter.astype(dtype) if change else parameter

    model.update(tree_map_with_path(cast, model.parameters()))
    mx.eval(model.parameters())


def _decoder(model: Any, output: Output, slots: Slots, context_tokens: int) -> tuple[Any, str]:
    """The fastest way of decoding that agrees with generate, and what there is to say about it."""
    sizes: list[int | None] = []
    batched: Decoder | None = None
    try:
        sizes = windows(model)
        batched = BatchedDecoder(output, slots, sizes)
    except InvalidConfig as error:
        complaint = str(error)
    expected = references(model, output.vocabulary, sizes, context_tokens)
    if batched is not None:
        complaint = disagreement(batched, expected, slots.dtype)
        if not complaint:
            return BatchedDecoder(output, slots, sizes), ""
    log.warning("rows are computed one at a time", reason=complaint)
    notes = f"rows are computed one at a time: {complaint}"
    if complaint := disagreement(SoloDecoder(model, output, slots), expected, slots.dtype):
        raise InvalidConfig(f"this base does not decode as its library's generate does: {complaint}")
    return SoloDecoder(model, output, slots), notes


def _device(wanted: str) -> mx.Device:
    if wanted == "auto":
        return mx.gpu if mx.is_available(mx.gpu) else mx.cpu
    if wanted not in DEVICES or not mx.is_available(DEVICES[wanted]):
        raise InvalidConfig(f"worker.device = {wanted!r} is not there", "Use auto, cpu or gpu")
    return DEVICES[wanted]

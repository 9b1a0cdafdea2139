"""`TorchEngine`: a transformers model as the worker's engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.utils import logging as library_logging

from genome import bases, blas
from genome.config import Worker
from genome.errors import InvalidConfig
from genome.lora import Lora
from inference_worker.engine import Facts, Likelihood, Question, Row, State, Terms, context_tokens
from inference_worker.engine_torch import attention
from inference_worker.engine_torch.batched import BatchedDecoder
from inference_worker.engine_torch.factors import LoraWeights
from inference_worker.engine_torch.selfcheck import Decoder, disagreement
from inference_worker.engine_torch.slots import Slots
from inference_worker.engine_torch.solo import SoloDecoder
from inference_worker.text import TemplateTokenizer

log = structlog.get_logger()


class TorchLogits:
    """`inference_worker.engine.Logits` over one tensor [rows, vocabulary]."""

    def __init__(self, logits: torch.Tensor) -> None:
        self._logits = logits
        largest, tokens = logits.max(dim=1)  # not a number if any is
        self.finite: list[bool] = torch.isfinite(largest).tolist()
        self.greedy: list[int] = tokens.tolist()

    def row(self, index: int) -> np.ndarray:
        return self._logits[index].float().cpu().numpy()


class TorchEngine:
    """One base model with its adapters' places and its rows."""

    def __init__(self, model: Any, tokenizer: TemplateTokenizer, context_tokens: int) -> None:
        self.tokenizer = tokenizer
        attention.install(model)
        self._slots = Slots(model)
        self._decoder, notes = _decoder(model, self._slots, context_tokens)
        self.facts = Facts(
            name="torch",
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            context_tokens=context_tokens,
            vocabulary=model.get_input_embeddings().num_embeddings,
            batched=not notes,
            notes=notes,
        )

    def size(self, lora: Lora) -> int:
        return self._slots.size(lora)

    def load(self, lora: Lora) -> LoraWeights:
        return self._slots.load(lora)

    def forget(self) -> None:
        """Nothing outlives its adapter: slots know adapters weakly."""

    def open(self, terms: Terms) -> Row:
        row: Row = self._decoder.open(terms)
        return row

    @torch.inference_mode()
    def close(self, row: Row) -> None:
        self._decoder.close(row)

    @torch.inference_mode()
    def forward(self, work: Sequence[tuple[Any, Sequence[int]]]) -> TorchLogits:
        try:
            logits = TorchLogits(self._decoder.forward(work))
        except BaseException:  # what it left in them is anyone's guess
            for row, _ in work:
                row.damaged = True
            raise
        for (row, _), finite in zip(work, logits.finite, strict=True):
            row.damaged = row.damaged or not finite
        return logits

    @torch.inference_mode()
    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        answers: list[list[Likelihood]] = self._decoder.score(questions)
        return answers

    @torch.inference_mode()
    def likelihood(self, row: Row, tokens: Sequence[int]) -> Likelihood:
        answer: Likelihood = self._decoder.likelihood(row, tokens) if len(tokens) > 1 else Likelihood((), ())
        return answer

    @torch.inference_mode()
    def snapshot(self, row: Row, length: int) -> State:
        state: State = self._decoder.snapshot(row, length)
        return state

    @torch.inference_mode()
    def restore(self, row: Row, state: State, length: int) -> None:
        self._decoder.restore(row, state, length)


def load(base: Path, settings: Worker) -> TorchEngine:
    """Loads a Hugging Face causal language model. Raises InvalidConfig if it is none, or the device is not there."""
    torch.set_num_threads(settings.threads)
    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
    device = _device(settings.device)
    dtype = settings.dtype if settings.dtype != "auto" else _dtype(device)
    try:
        model = _model(base, getattr(torch, dtype), device)
        ends = model.generation_config.eos_token_id
        tokenizer = TemplateTokenizer(base, ends)
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError, SafetensorError) as error:
        complaint = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidConfig(f"{base} cannot be loaded as a language model: {complaint}") from error
    model = model.eval().requires_grad_(False)
    made_for = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return TorchEngine(model, tokenizer, context_tokens(made_for, settings))


def _model(base: Path, dtype: torch.dtype, device: str) -> Any:
    """The base as plain linear layers: weights that are quantised are multiplied out, as adapters lie beside them."""
    quantised = bases.quantisation(base).method != "none"
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, local_files_only=True, use_safetensors=True, device_map={"": device} if quantised else None
    )
    if not quantised:
        return model.to(device)
    log.warning("a quantised base is served multiplied out, in full size", base=str(base), dtype=str(dtype))
    return model.dequantize(dtype)


@torch.inference_mode()
def _decoder(model: Any, slots: Slots, context_tokens: int) -> tuple[Any, str]:
    """The fastest way of decoding that agrees with generate, and what there is to say about it."""
    complaint = ""
    try:
        batched: Decoder = BatchedDecoder(model, slots)
        complaint = disagreement(batched, model, context_tokens)
        if not complaint:
            return BatchedDecoder(model, slots), ""
    except InvalidConfig as error:
        complaint = str(error)
    log.warning("rows are computed one at a time", reason=complaint)
    notes = f"rows are computed one at a time: {complaint}"
    if complaint := disagreement(SoloDecoder(model, slots), model, context_tokens):
        raise InvalidConfig(f"this base does not decode as its library's generate does: {complaint}")
    return SoloDecoder(model, slots), notes


def _dtype(device: str) -> str:
    """bfloat16 where the hardware computes with it: half the memory, and a token costs little more than reading it."""
    has = getattr(torch.cpu, "get_capabilities", dict)()
    native = device != "cpu" or any(has.get(name) for name in blas.BF16_INSTRUCTIONS)
    return "bfloat16" if native else "float32"


def _device(wanted: str) -> str:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there.get(wanted.partition(":")[0]):
        raise InvalidConfig(f"worker.device = {wanted!r} is not there", "Use auto, cpu, cuda or mps")
    return wanted

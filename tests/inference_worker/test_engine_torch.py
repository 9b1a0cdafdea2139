"""Promises of the torch engine alone: which architectures of its library it batches."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)
from worker_runs import PROMPTS, SMALL, Steps, generation, library_tokens

from inference_worker.engine import Engine
from inference_worker.engine_torch.model import TorchEngine

BATCHED = [
    LlamaConfig(**SMALL),
    MistralConfig(**SMALL, sliding_window=8),
    Qwen3Config(**SMALL),
    Gemma3TextConfig(**SMALL, sliding_window=8),
    GptOssConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1, sliding_window=8),
]
ONE_BY_ONE = [
    BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=100),
    MambaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=100),
]


@pytest.mark.parametrize("config", BATCHED + ONE_BY_ONE, ids=lambda config: config.model_type)
def test_every_architecture_decodes_as_its_library_does(engine: Engine, config: PreTrainedConfig) -> None:
    """Attention models are batched, past their sliding window too; others run one row at a time and say so."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    other = TorchEngine(model, engine.tokenizer, 128)  # type: ignore[arg-type]
    assert other.facts.batched == (config in BATCHED), other.facts.notes
    assert ("one at a time" in other.facts.notes) == (config in ONE_BY_ONE)
    steps = Steps(other)
    requests = [generation(prompt, 16) for prompt in PROMPTS[:3]]
    for request in requests:
        steps.submit(request)
        steps.step()
    steps.step_until_done(*requests)
    assert [request.written for request in requests] == [library_tokens(model, prompt, 16) for prompt in PROMPTS[:3]]

"""Promises of the torch engine alone: which architectures of its library it batches."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from fixed import SHIPPED_BASE
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


PROMPTS_OF_EVERY_LENGTH = f"""
from pathlib import Path
from genome.config import Worker
from inference_worker import engine

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024

found = engine.load(Path({str(SHIPPED_BASE)!r}), Worker(engine="torch", device="cpu", dtype="bfloat16"))
for length in range(10, 150):
    row = found.open(())
    found.forward([(row, [7] * length)])
    found.close(row)
    if length == 10:
        early = resident()
print(resident() - early)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_prompts_of_many_lengths_take_no_more_memory_than_one() -> None:
    """What is compiled for a number of tokens is not kept for ever. Only a processor that computes in bfloat16 shows
    it."""
    command = [sys.executable, "-c", PROMPTS_OF_EVERY_LENGTH]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 120


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

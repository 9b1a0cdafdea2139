"""The models that are measured, with random weights, and adapters for them made by PEFT."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from genome import adapters, bases, lora
from genome.layout import Home

SHIPPED_BASE = Path(__file__).resolve().parents[1] / "daemon" / "demo" / "base"
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK = 16
CONFIGS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "S": {
            "vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8,
            "num_key_value_heads": 4, "intermediate_size": 1024,
        },
        # The shape of SmolLM2-360M.
        "M": {
            "vocab_size": 49152, "hidden_size": 960, "num_hidden_layers": 32, "num_attention_heads": 15,
            "num_key_value_heads": 5, "intermediate_size": 2560,
        },
    }
)  # fmt: skip


def make_base(name: str, directory: Path, dtype: str, spread: float = 0.02) -> Path:
    """Saves a base with random weights of that standard deviation, and the shipped tokenizer."""
    path = directory / f"{name}-{dtype}"
    config = LlamaConfig(
        **CONFIGS[name], max_position_embeddings=2048, tie_word_embeddings=True, initializer_range=spread,
        bos_token_id=1, eos_token_id=None, dtype=dtype,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(path)
    for file in SHIPPED_BASE.glob("token*"):
        shutil.copy(file, path)
    return path


def library_model(base: Path, dtype: str) -> Any:
    """The base as transformers serves it."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype)).eval().requires_grad_(False)


def make_adapters(home: Home, base: Path, dtype: str, count: int, spread: float = 0.02) -> list[str]:
    """Installs adapters of rank 16 on all linear layers, as version 1.0, 1.1, … of one domain; returns their ids."""
    model = get_peft_model(
        library_model(base, dtype), LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(LINEARS))
    )
    fingerprint, ids = bases.fingerprint(base), []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                # PEFT makes factors in float32 whatever the base is; they are saved as the worker computes.
                parameter.data = torch.empty_like(parameter.data).normal_(0, spread, generator=generator)
                parameter.data = parameter.data.to(getattr(torch, dtype))
        made = home.root / "peft"
        model.save_pretrained(made, save_embedding_layers=False)
        ids.append(f"bench/speed-v1.{number}")
        described = {"id": ids[-1], "base_fingerprint": fingerprint, "origin": "PEFT", "created": 0}
        adapters.install(home, lora.read(made), str(base), described)
        shutil.rmtree(made)
    return ids

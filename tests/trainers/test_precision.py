"""What a base is computed in, and that a LoRA learns in float32 whatever that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_runs import question, run_trainer, weights, write_job

from daemon.trainers.torch_lora.trainer import _dtype
from genome import lora
from genome.training import TrainingSettings

SETTINGS = TrainingSettings(rank=8, alpha=16, learning_rate=1e-2, epochs=12, checkpoint_steps=1000, dtype="bfloat16")
SIGNALS = [question("What colour is the door?", "green"), question("Who keeps the key?", "Ada has it")]
CPU = torch.device("cpu")


def test_in_half_precision_it_learns_and_its_adapter_is_in_single(
    trainer: str, base_path: Path, tmp_path: Path
) -> None:
    """Not only in name: the weights are no bfloat16s written as float32."""
    job = write_job(tmp_path / "job", base_path, SIGNALS, SETTINGS)
    outcome = run_trainer(trainer, job, tmp_path / "checkpoints")
    assert outcome.status == 0, outcome.log
    assert outcome.losses[-1] < 0.2 * outcome.losses[0]
    factors = lora.read(outcome.adapter).modules.values()
    assert {tensor.dtype for each in factors for tensor in (each.a, each.b)} == {"F32"}
    for name, found in weights(outcome.adapter).items():
        assert np.mean(found.view(np.uint32) & 0xFFFF != 0) > 0.9, name


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the processor can, as PyTorch tells it."""
    found: dict[str, Any] = {"architecture": "x86_64", "avx2": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    return found


def stored(directory: Path, **config: Any) -> Path:
    directory.joinpath("config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_half_base_is_computed_so_where_the_processor_can(
    name: str, tmp_path: Path, instructions: dict[str, Any]
) -> None:
    """Elsewhere each product would be made in single precision after all, and slower."""
    base = stored(tmp_path, dtype="bfloat16")
    assert _dtype(base, TrainingSettings(), CPU) is torch.float32
    instructions[name] = False
    assert _dtype(base, TrainingSettings(), CPU) is torch.float32
    instructions[name] = True
    assert _dtype(base, TrainingSettings(), CPU) is torch.bfloat16
    assert _dtype(base, TrainingSettings(), torch.device("mps")) is torch.float32


def test_a_base_stored_in_single_precision_stays_so(tmp_path: Path, instructions: dict[str, Any]) -> None:
    """Also where its config says it in the older word, or of its text alone."""
    instructions["avx512_bf16"] = True
    for config in ({"dtype": "float32"}, {"torch_dtype": "float32"}, {"text_config": {"dtype": "float32"}}):
        assert _dtype(stored(tmp_path, **config), TrainingSettings(), CPU) is torch.float32


def test_what_the_settings_say_is_what_it_is(tmp_path: Path, instructions: dict[str, Any]) -> None:
    instructions["avx512_bf16"] = True
    for said, base in (("float32", "bfloat16"), ("bfloat16", "float32")):
        found = _dtype(stored(tmp_path, dtype=base), TrainingSettings.model_validate({"dtype": said}), CPU)
        assert found is getattr(torch, said)

"""In which precision a GPU computes: bfloat16 where it does so natively, and never where it is emulated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fixed import SHIPPED_BASE

from daemon.trainers.torch_lora import trainer as torch_trainer
from genome.training import TrainingSettings

PACKAGE = "daemon.trainers.unsloth_lora"


@pytest.fixture(params=[7, 8], ids=["Turing", "Ampere"])
def ampere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """PyTorch finds a GPU of this generation, on which a bfloat16 tensor can be made either way."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(major=request.param))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _device: True)
    assert torch.cuda.is_bf16_supported()
    return bool(request.param == 8)


@pytest.fixture
def unsloth_trainer(ampere: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The trainer with Unsloth, of which there is nothing but its word on bfloat16, and with TRL's arguments as they
    are given."""
    said: dict[str, Any] = {"is_bfloat16_supported": lambda: ampere}
    for name, content in {
        "unsloth": said,
        "datasets": {"Dataset": object},
        "trl": {"SFTConfig": dict, "SFTTrainer": object},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, f"{PACKAGE}.trainer", raising=False)
    yield import_module(f"{PACKAGE}.trainer")
    del sys.modules[f"{PACKAGE}.trainer"], sys.modules[PACKAGE].trainer


def test_torch_takes_no_emulated_bfloat16(ampere: bool, tmp_path: Path) -> None:
    """A base in bfloat16 is computed in float32 on a GPU before Ampere; what genome.toml asks for it gets."""
    cuda = torch.device("cuda")
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    expected = torch.bfloat16 if ampere else torch.float32
    assert torch_trainer._dtype(SHIPPED_BASE, TrainingSettings(), cuda) == expected
    assert torch_trainer._dtype(tmp_path, TrainingSettings(), cuda) == torch.float32
    for dtype in ("float32", "bfloat16"):
        assert torch_trainer._dtype(SHIPPED_BASE, TrainingSettings(dtype=dtype), cuda) == getattr(torch, dtype)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_unsloth_is_asked_for_the_half_it_chose_itself(ampere: bool, unsloth_trainer: Any, dtype: Any) -> None:
    """It loads a base in float16 where there is no bfloat16, and refuses to train that one in bfloat16."""
    settings = TrainingSettings(dtype=dtype)
    course: Any = type("Course", (list,), {"settings": settings, "done": 0})([None])
    half = (False, False) if dtype == "float32" else (ampere, not ampere)
    given = unsloth_trainer._arguments(torch.nn.Module(), course, "scratch")
    assert (given["bf16"], given["fp16"]) == half
    measured = unsloth_trainer._half_type(torch.nn.Module(), settings)
    assert (measured is torch.bfloat16, measured is torch.float16) == half


def test_unsloth_measures_in_float32_what_it_keeps_from_float16(unsloth_trainer: Any) -> None:
    """A base of Gemma 3's kind overflows in it, and Unsloth trains it without autocast."""
    model: Any = torch.nn.Module()
    model._unsloth_forced_float32 = True
    assert unsloth_trainer._half_type(model, TrainingSettings()) is None

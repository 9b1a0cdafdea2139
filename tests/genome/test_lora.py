"""Adapters from elsewhere: what is read, and what is refused in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from genome import lora, tensors
from genome.errors import InvalidAdapter

MODULE = "model.layers.0.mlp.up_proj"
Peft = Callable[..., Path]


@pytest.fixture
def peft(tmp_path: Path) -> Peft:
    """A PEFT directory; config keys and tensors can be replaced."""

    def make(tensors: dict[str, Any] | None = None, **config: Any) -> Path:
        directory = tmp_path / "peft"
        directory.mkdir(exist_ok=True)
        ones = {f"base_model.model.{MODULE}.lora_A.weight": np.ones((4, 8), np.float32),
                f"base_model.model.{MODULE}.lora_B.weight": np.ones((6, 4), np.float32)}  # fmt: skip
        save_file({**ones, **(tensors or {})}, directory / lora.PEFT_WEIGHTS)
        written = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["up_proj"], **config}
        (directory / lora.CONFIG).write_text(json.dumps(written))
        return directory

    return make


def test_scaling_is_alpha_over_rank(peft: Peft) -> None:
    """rsLoRA and patterns are folded in."""
    assert lora.read(peft()).modules[MODULE].scaling == 2.0
    assert lora.read(peft(use_rslora=True)).modules[MODULE].scaling == 4.0
    assert lora.read(peft(alpha_pattern={"up_proj": 16})).modules[MODULE].scaling == 4.0
    assert lora.read(peft(r=2, rank_pattern={r"model\.layers\.0\.mlp\.up_proj": 4})).modules[MODULE].scaling == 2.0


def test_an_mlx_directory_reads_as_its_peft_twin(tmp_path: Path) -> None:
    """Factors are transposed; the scale is alpha over rank already."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(8, 4)).astype(np.float32), generator.normal(size=(4, 6)).astype(np.float32)
    save_file({f"{MODULE}.lora_a": a, f"{MODULE}.lora_b": b}, tmp_path / lora.MLX_WEIGHTS)
    (tmp_path / lora.CONFIG).write_text(
        json.dumps({"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 20.0}})
    )
    factors = lora.read(tmp_path).modules[MODULE]
    assert factors.scaling == 20.0
    assert np.array_equal(np.frombuffer(factors.a.data, np.float32).reshape(factors.a.shape), a.T)
    assert np.array_equal(np.frombuffer(factors.b.data, np.float32).reshape(factors.b.shape), b.T)


def test_a_single_file_says_its_rank_or_is_told(peft: Peft, tmp_path: Path) -> None:
    """Without metadata, --rank and --alpha are needed, and the message says so."""
    single = tmp_path / "one.safetensors"
    single.write_bytes((peft() / lora.PEFT_WEIGHTS).read_bytes())
    with pytest.raises(InvalidAdapter, match="--rank and --alpha"):
        lora.read(single)
    assert lora.read(single, rank=4, alpha=8).modules[MODULE].scaling == 2.0


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": 3}, "rank 3"),
        ({"r": 0}, "makes no sense"),
        ({"lora_alpha": "much"}, "makes no sense"),
        ({"rank_pattern": ["q_proj"]}, "makes no sense"),
        ({"rank_pattern": {"(": 4}}, "makes no sense"),
    ],
)
def test_what_cannot_be_served_is_named(peft: Peft, config: dict[str, Any], reason: str) -> None:
    """A feature that would be ignored is refused instead."""
    with pytest.raises(InvalidAdapter, match=reason):
        lora.read(peft(**config))


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({f"base_model.model.{MODULE}.lora_A.weight": np.full((4, 8), np.nan, np.float32)}, "not finite"),
        ({f"base_model.model.{MODULE}.lora_B.weight": np.ones((6, 3), np.float32)}, "rank"),
        ({"base_model.model.x.lora_A.weight": np.ones((4, 8), np.float32)}, "only one of the two"),
        ({"base_model.model.lm_head.weight": np.ones((4, 8), np.float32)}, "no LoRA factor"),
    ],
)
def test_a_damaged_adapter_is_refused(peft: Peft, tensors: dict[str, Any], reason: str) -> None:
    """Not finite, unequal ranks, half a pair, foreign tensors."""
    with pytest.raises(InvalidAdapter, match=reason):
        lora.read(peft(tensors))


def test_a_truncated_file_is_refused(peft: Peft) -> None:
    """At every length it could have been cut to."""
    directory = peft()
    data = (directory / lora.PEFT_WEIGHTS).read_bytes()
    for length in (0, 4, 8, 20, len(data) // 2, len(data) - 1):
        (directory / lora.PEFT_WEIGHTS).write_bytes(data[:length])
        with pytest.raises(InvalidAdapter, match="cannot be read as safetensors"):
            lora.read(directory)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    """A directory of pickles is no adapter; the message says what it holds."""
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / lora.CONFIG).write_text("{}")
    with pytest.raises(InvalidAdapter, match=r"adapter_model\.bin"):
        lora.read(tmp_path)


def test_bfloat16_is_checked_for_finite_values() -> None:
    """numpy has no bf16; its bits are looked at."""
    good = np.array([0x3F80, 0xBF80], np.uint16).tobytes()
    for bad in (0x7F80, 0xFF80, 0x7FC0):
        assert not tensors.Tensor("BF16", (1,), np.array([bad], np.uint16).tobytes()).is_finite()
    assert tensors.Tensor("BF16", (2,), good).is_finite()


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({}, (4, 2)),
        ({"lora_parameters": None}, (4, 2)),
        ({"lora_parameters": {"scale": "2"}}, (4, 2)),
        ({"lora_alpha": 4, "r": 0}, (4, 2)),
        ({"lora_parameters": {"scale": 2.0}}, ()),
        ({"lora_parameters": {"scale": 2.0}}, (4, 0)),
    ],
)
def test_an_mlx_adapter_that_makes_no_sense_is_refused(
    tmp_path: Path, config: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """Whatever is missing or odd in it, the answer is that it is no adapter, not a crash."""
    factors = {f"{MODULE}.lora_a": np.zeros(shape, np.float32), f"{MODULE}.lora_b": np.zeros(shape[::-1], np.float32)}
    save_file(factors, tmp_path / lora.MLX_WEIGHTS)
    (tmp_path / lora.CONFIG).write_text(json.dumps({"fine_tune_type": "lora", **config}))
    with pytest.raises(InvalidAdapter):
        lora.read(tmp_path)

"""Copies of a base: what their quantisation is called, and what speaks against a directory being one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from genome import bases, copies
from genome.errors import InvalidConfig

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 3, "head_dim": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "dtype": "bfloat16", "eos_token_id": 2,
}  # fmt: skip
OLDER = {"rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "float16", "eos_token_id": [2, 1]}
"""The same, as transformers 4 wrote it."""
TOKENIZER = {"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": []}
LINEAR = "model.layers.0.self_attn.q_proj"
NORM = "model.layers.0.input_layernorm.weight"
BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A model directory; keys of config and tokenizer, and tensors, can be replaced."""

    def write(name: str, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
        path = tmp_path / name
        path.mkdir()
        tokenizer, template = config.pop("tokenizer", TOKENIZER), config.pop("template", "{{ messages }}")
        older = config.pop("older", False)
        said = {key: value for key, value in CONFIG.items() if not (older and key == "rope_parameters")}
        (path / "config.json").write_text(json.dumps(said | (OLDER if older else {}) | config))
        (path / "tokenizer.json").write_text(json.dumps(tokenizer))
        (path / "chat_template.jinja").write_text(template)
        plain = {f"{LINEAR}.weight": np.ones((32, 64), np.float32)}
        save_file(
            {NORM: np.ones(64, np.float32), **(plain if tensors is None else tensors)}, path / "model.safetensors"
        )
        return path

    return write


def mlx(bits: int = 4, rows: int = 32) -> dict[str, Any]:
    return {
        f"{LINEAR}.weight": np.zeros((rows, 64 * bits // 32), np.uint32),
        f"{LINEAR}.scales": np.ones((rows, 2), np.float32), f"{LINEAR}.biases": np.ones((rows, 2), np.float32),
    }  # fmt: skip


def bitsandbytes(rows: int = 32) -> dict[str, Any]:
    return {
        f"{LINEAR}.weight": np.zeros((rows * 64 // 2, 1), np.uint8),
        f"{LINEAR}.weight.absmax": np.ones(rows, np.float32),
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "not quantised"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "4-bit mlx affine, groups of 64"),
        ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, "4-bit mlx mxfp4, groups of 32"),
        ({"quantization_config": BITSANDBYTES}, "4-bit bitsandbytes nf4"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "8-bit bitsandbytes int8"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "4-bit gptq, groups of 128"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": -1}}, "4-bit awq"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
    ],
)
def test_a_quantisation_is_named(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    """Method, bits and groups, from what each tool writes into config.json."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert str(bases.quantisation(tmp_path)) == words


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (None, {"older": True}),
        (mlx(), {"quantization": {"bits": 4, "group_size": 32}, "older": True}),
        (mlx(8), {"quantization": {"bits": 4, "group_size": 64, LINEAR: {"bits": 8, "group_size": 32}}}),
        (bitsandbytes(), {"quantization_config": BITSANDBYTES}),
        ({f"{LINEAR}.qweight": np.zeros((8, 32), np.int32)}, {"quantization_config": {"quant_method": "gptq"}}),
        (None, {"tokenizer": {"model": {"vocab": TOKENIZER["model"]["vocab"], "merges": [["a", "b"]]}}}),  # type: ignore[index]
    ],
)
def test_a_copy_is_taken_however_it_was_written(make: Make, tensors: dict[str, Any] | None, config: Any) -> None:
    """Packed weights, older names of the rotary settings, other types and ends, merges as pairs."""
    base, copy = make("base"), make("copy", tensors, **config)
    assert copies.difference(base, copy) == ""
    assert copies.resolve(base, str(copy), "training.base") == copy
    assert bases.fingerprint(base) != bases.fingerprint(copy)


@pytest.mark.parametrize(
    ("tensors", "config", "reason"),
    [
        (None, {"hidden_size": 128}, "hidden_size is 128"),
        (None, {"model_type": "qwen2"}, "model_type is 'qwen2'"),
        (None, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_theta is 10000.0"),
        (None, {"rope_parameters": None, "rope_theta": 1e4}, "rope_theta is 10000.0"),
        (
            {f"{LINEAR}.weight": np.ones((16, 64), np.float32)},
            {},
            r"q_proj.weight is \[16, 64\], in the base \[32, 64\]",
        ),
        (mlx(rows=16), {"quantization": {"bits": 4, "group_size": 32}}, r"q_proj.weight is \[16, 64\]"),
        (mlx(8), {"quantization": {"bits": 4, "group_size": 64}}, r"q_proj.weight is \[32, 128\]"),
        (bitsandbytes(16), {"quantization_config": BITSANDBYTES}, r"q_proj.weight is \[1024\]"),
        (None, {"tokenizer": {"model": {"vocab": {"a": 0, "b": 1, "ba": 2}, "merges": []}}}, "another tokenizer.json"),
        (None, {"template": "{{ bos_token }}{{ messages }}"}, "another chat template"),
    ],
)
def test_what_cannot_be_the_same_model_is_refused(
    make: Make, tensors: dict[str, Any] | None, config: Any, reason: str
) -> None:
    """Architecture, shapes, tokenizer or template differ: the key, both directories and the reason are named."""
    base, other = make("base"), make("other", tensors, **config)
    with pytest.raises(
        InvalidConfig, match=rf"worker\.base = .* cannot be a copy of the base: .*{reason}.*The base is"
    ):
        copies.resolve(base, str(other), "worker.base")


def test_a_base_that_names_no_copy_is_itself(make: Make) -> None:
    base = make("base")
    assert copies.resolve(base, "", "training.base") == base


def test_what_a_library_cannot_read_is_said_before_it_tries(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """mlx's weights are nothing to torch, bitsandbytes' nothing to mlx, and a package that is missing is named."""
    plain = make("plain")
    packed = make("mlx", mlx(), quantization={"bits": 4, "group_size": 32})
    four = make("four", bitsandbytes(), quantization_config=BITSANDBYTES)
    for path, library in ((plain, "torch"), (plain, "mlx"), (packed, "mlx")):
        copies.check_readable(path, library)
    with pytest.raises(InvalidConfig, match=r"4-bit mlx affine, groups of 32, which torch does not read\. mlx"):
        copies.check_readable(packed, "torch")
    with pytest.raises(InvalidConfig, match="which mlx does not read"):
        copies.check_readable(four, "mlx")
    monkeypatch.setattr(copies, "find_spec", lambda name: None)
    with pytest.raises(InvalidConfig, match="pip install bitsandbytes"):
        copies.check_readable(four, "torch")

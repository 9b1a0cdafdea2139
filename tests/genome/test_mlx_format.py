"""Adapters and configs as mlx-lm reads them: what is written computes the same, and reads back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genome import lora, mlx_format
from genome.errors import InvalidAdapter
from genome.lora import Factors, Lora
from genome.tensors import Tensor, floats

NAMES = ("self_attn.q_proj", "mlp.down_proj")


def tensor(shape: tuple[int, int], seed: int, dtype: str = "F32") -> Tensor:
    values = np.random.default_rng(seed).normal(size=shape)
    if dtype == "BF16":
        return Tensor("BF16", shape, (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
    return Tensor(dtype, shape, values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes())


def factors(seed: int, rank: int = 4, scaling: float = 2.0, dtype: str = "F32") -> Factors:
    return Factors(tensor((rank, 8), seed, dtype), tensor((6, rank), seed + 100, dtype), scaling)


def adapter(*blocks: int, **shape: Any) -> Lora:
    """The same modules in every block."""
    paths = [f"model.layers.{block}.{name}" for block in blocks for name in NAMES]
    return Lora({path: factors(seed, **shape) for seed, path in enumerate(paths)}, digest="")


def product(one: Factors) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = one.scaling * floats(one.b).astype(np.float64) @ floats(one.a).astype(np.float64)
    return found


def parameters(directory: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((directory / lora.CONFIG).read_bytes())
    return written


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_an_adapter_of_one_rank_and_scale_comes_back_bit_by_bit(tmp_path: Path, dtype: str) -> None:
    """PEFT → mlx-lm → PEFT: the very same weights file."""
    for name in ("peft", "mlx", "again"):
        (tmp_path / name).mkdir()
    lora.write_peft(tmp_path / "peft", adapter(0, 1, dtype=dtype), "base")
    mlx_format.write(tmp_path / "mlx", lora.read(tmp_path / "peft"))
    lora.write_peft(tmp_path / "again", lora.read(tmp_path / "mlx"), "base")
    for name in (lora.PEFT_WEIGHTS, lora.CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "peft" / name).read_bytes()


def test_ranks_and_scales_that_differ_are_evened_out(tmp_path: Path) -> None:
    """mlx-lm has one of each: every module has the largest rank and the commonest scale, and computes what it did."""
    modules = dict(adapter(0, 1).modules)
    modules["model.layers.0.self_attn.q_proj"] = factors(7, rank=2, scaling=5.0)
    modules["model.layers.1.mlp.down_proj"] = factors(8, rank=3, scaling=0.0, dtype="BF16")
    modules["model.layers.1.self_attn.q_proj"] = factors(9, dtype="F64")
    mlx_format.write(tmp_path, Lora(modules, digest=""))
    assert parameters(tmp_path)["lora_parameters"] | {"keys": None} == {
        "rank": 4, "scale": 2.0, "dropout": 0.0, "keys": None
    }  # fmt: skip
    read = lora.read(tmp_path).modules
    assert read.keys() == modules.keys()
    for path, one in modules.items():
        assert read[path].rank == 4
        assert product(read[path]) == pytest.approx(product(one), rel=1e-6, abs=1e-6)


def test_the_scale_is_never_zero_where_one_module_counts(tmp_path: Path) -> None:
    """What mlx-lm multiplies by 0 could not be multiplied up again."""
    modules = dict(adapter(0, 1, scaling=0.0).modules)
    modules["model.layers.0.self_attn.q_proj"] = one = factors(7, scaling=3.0)
    mlx_format.write(tmp_path, Lora(modules, digest=""))
    read = lora.read(tmp_path).modules
    assert product(read["model.layers.0.self_attn.q_proj"]) == pytest.approx(product(one))
    assert not product(read["model.layers.1.self_attn.q_proj"]).any()


def test_what_one_scale_cannot_hold_is_refused(tmp_path: Path) -> None:
    """A factor that would leave the range of single precision is named, not written as infinity."""
    modules = dict(adapter(0, 1, scaling=1e-30).modules)
    modules["model.layers.0.self_attn.q_proj"] = factors(7, scaling=1e30)
    with pytest.raises(InvalidAdapter, match=r"model\.layers\.0\.self_attn\.q_proj cannot be written for mlx-lm"):
        mlx_format.write(tmp_path, Lora(modules, digest=""))


@pytest.mark.parametrize(
    ("blocks", "layers", "num_layers", "short"),
    [((0, 1, 2), 3, 3, True), ((1, 2), 3, 2, True), ((0, 1), 3, 2, False), ((0, 2), 3, 2, False), ((0,), None, 1, 0)],
)
def test_layers_are_named_so_that_mlx_lm_finds_these_and_no_others(
    tmp_path: Path, blocks: tuple[int, ...], layers: int | None, num_layers: int, short: bool
) -> None:
    """Short as its own trainer writes them where the last blocks are adapted, whole paths elsewhere."""
    mlx_format.write(tmp_path, adapter(*blocks), layers)
    written = parameters(tmp_path)
    whole = sorted(f"model.layers.{block}.{name}" for block in blocks for name in NAMES)
    assert written["num_layers"] == num_layers
    assert written["lora_parameters"]["keys"] == (sorted(NAMES) if short else whole)


def test_rotary_settings_get_the_names_mlx_lm_reads(tmp_path: Path) -> None:
    """What transformers 5 writes as rope_parameters, also in a text_config; what is there already stays."""

    def told(config: dict[str, Any]) -> dict[str, Any]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return mlx_format.config(tmp_path)

    plain = {"rope_type": "default", "rope_theta": 5e5}
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    assert told({"rope_parameters": plain}) == {"rope_theta": 5e5}
    assert told({"rope_parameters": yarn}) == {"rope_theta": 1e4, "rope_scaling": yarn}
    assert told({"rope_parameters": plain, "rope_theta": 7.0}) == {}
    assert told({"text_config": {"x": 1, "rope_parameters": plain}}) == {
        "text_config": {"x": 1, "rope_parameters": plain, "rope_theta": 5e5}
    }

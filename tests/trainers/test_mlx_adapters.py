"""One adapter, three ways to compute it: mlx-lm's own LoRA layers, the worker's MLX engine and its torch engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trainer_runs import question, run_trainer, write_job

from daemon.trainers.contract import Lesson
from daemon.trainers.examples import Tokens
from genome import bases, lora, mlx_format
from genome.config import Worker
from genome.training import Job, TrainingSettings
from inference_worker import engine as engines
from inference_worker.engine import Term

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed: pip install 'genome[mlx]'")

ANSWERS = {"What colour is the door?": "green", "Who keeps the key?": "Ada has it"}
PROMPT = (5, 9, 40, 33, 61, 7)


@pytest.fixture(scope="module")
def trained(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT directory that the mlx trainer made."""
    directory = tmp_path_factory.mktemp("mlx")
    settings = TrainingSettings(rank=8, alpha=16, learning_rate=1e-2, epochs=15, checkpoint_steps=1000, anchor_weight=0)
    job = write_job(directory / "job", base_path, [question(*each) for each in ANSWERS.items()], settings)
    outcome = run_trainer("mlx", job, directory / "checkpoints")
    assert outcome.status == 0, outcome.log
    return outcome.adapter


def mlx_lm_logits(base: Path, adapter: Path | None) -> np.ndarray:
    """After each token of the prompt, in single precision, by mlx-lm alone."""
    import mlx.core as mx
    from mlx_lm import load

    model, *_ = load(str(base), adapter_path=str(adapter) if adapter else None)
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([PROMPT]))[0].astype(mx.float32))


def engine_logits(name: str, base: Path, adapter: Path | None) -> np.ndarray:
    """Likewise, by an engine of the worker."""
    engine = engines.load(base, Worker(engine=name, device="cpu", dtype="float32"))  # type: ignore[arg-type]
    terms = (Term(engine.load(lora.read(adapter)), 1.0),) if adapter else ()
    row = engine.open(terms)
    logits = [engine.forward([(row, [token])]).row(0) for token in PROMPT]
    engine.close(row)
    return np.array(logits)


def test_what_is_kept_is_the_average_of_the_last_steps(base_path: Path, tmp_path: Path) -> None:
    """Also by a run that goes on from a checkpoint."""
    from mlx.utils import tree_flatten

    from daemon.trainers.mlx_lora import load

    checkpoint, adapter = tmp_path / "checkpoint", tmp_path / "adapter"
    checkpoint.mkdir(), adapter.mkdir()
    trainer = load(Job.read(write_job(tmp_path / "job", base_path, [question("Hi", "well")]) / "job.json"))
    averaged: dict[str, np.ndarray] = {}
    for number in range(4):
        trainer._step(Lesson([Tokens([5, 9, 40], [33, 61], 1.0)], [], 1e-2, average_decay=0.75))
        newest = {path: np.array(each) for path, each in tree_flatten(trainer.model.trainable_parameters())}
        averaged = {key: 0.75 * averaged[key] + 0.25 * newest[key] for key in newest} if averaged else newest
        if number == 1:
            trainer.save(checkpoint)
            trainer._average = None
            trainer.restore(checkpoint)
    trainer.export(adapter)
    for path, factors in lora.read(adapter).modules.items():
        for mine, exported in (("lora_a", factors.a), ("lora_b", factors.b)):
            found = np.frombuffer(exported.data, np.float32).reshape(exported.shape).T
            np.testing.assert_allclose(found, averaged[f"{path}.{mine}"], rtol=1e-4, atol=1e-7)


def test_of_a_base_with_experts_the_layers_are_adapted_that_both_engines_serve(tmp_path: Path) -> None:
    """What chooses between experts is linear in mlx-lm, and not in transformers."""
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    from daemon.trainers.mlx_lora import load

    config = Qwen3MoeConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        decoder_sparse_step=1, mlp_only_layers=[0],
    )  # fmt: skip
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    written = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**written, "num_experts": 4}))  # as mlx-lm reads it
    adapter.mkdir()
    load(Job.read(write_job(tmp_path / "job", base, []) / "job.json")).export(adapter)
    assert len(lora.read(adapter).modules) == 2 * 4 + 3
    for name in ("mlx", "torch"):
        assert np.isfinite(engine_logits(name, base, adapter)).all()


@pytest.mark.parametrize("layers", [None, "known"])
def test_an_exported_adapter_computes_the_same_in_mlx_lm(
    trained: Path, base_path: Path, tmp_path: Path, layers: str | None
) -> None:
    """mlx_lm.load(base, adapter_path) says what the worker says with the PEFT directory; both ways of naming layers."""
    weights = lora.read(trained)
    mlx_format.write(tmp_path, weights, bases.layers(base_path) if layers else None)
    found = mlx_lm_logits(base_path, tmp_path)
    assert np.abs(found - mlx_lm_logits(base_path, None)).max() > 1  # it learned something
    for name in ("mlx", "torch"):
        assert found == pytest.approx(engine_logits(name, base_path, trained), abs=2e-3), name


def test_an_adapter_with_ranks_and_scales_of_its_own_does_too(trained: Path, base_path: Path, tmp_path: Path) -> None:
    """One layer left out, one of half the rank, one at another scale: as PEFT's patterns say it."""
    modules = dict(lora.read(trained).modules)
    first, second, third, *_ = sorted(modules)
    del modules[first]
    half = modules[second]
    rows = half.rank // 2 * half.a.shape[1] * 4
    b = np.frombuffer(half.b.data, np.float32).reshape(half.b.shape)[:, : half.rank // 2]
    modules[second] = lora.Factors(
        lora.Tensor("F32", (half.rank // 2, half.a.shape[1]), bytes(half.a.data[:rows])),
        lora.Tensor("F32", b.shape, b.tobytes()),
        half.scaling,
    )
    modules[third] = lora.Factors(modules[third].a, modules[third].b, 3.3)
    (tmp_path / "peft").mkdir()
    (tmp_path / "mlx").mkdir()
    lora.write_peft(tmp_path / "peft", lora.Lora(modules, digest=""), str(base_path))
    mlx_format.write(tmp_path / "mlx", lora.read(tmp_path / "peft"), bases.layers(base_path))
    found = mlx_lm_logits(base_path, tmp_path / "mlx")
    assert found == pytest.approx(engine_logits("torch", base_path, tmp_path / "peft"), abs=2e-3)
    assert np.abs(found - engine_logits("torch", base_path, trained)).max() > 0.05


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 500000.0},
        {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64},
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_rotary_settings_of_the_base_count_in_every_library(
    rope: dict[str, object], base_path: Path, tmp_path: Path
) -> None:
    """A base that transformers 5 saved with another rope_theta is the same model to both engines and both trainers."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=1500, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=512, rope_parameters=rope, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base_path).save_pretrained(tmp_path / "base")
    by_torch, by_mlx = (engine_logits(name, tmp_path / "base", None) for name in ("torch", "mlx"))
    assert by_mlx == pytest.approx(by_torch, abs=2e-3)
    assert np.abs(mlx_lm_logits(tmp_path / "base", None) - by_torch).max() > 0.1  # what the library makes of it alone
    long = " ".join(["How does it open, and who keeps the key of the green door?"] * 8)
    settings = TrainingSettings(rank=4, alpha=4, epochs=1, anchor_weight=0, dtype="float32")
    first = {}
    for trainer in ("torch", "mlx"):
        job = write_job(tmp_path / trainer, tmp_path / "base", [question(long, "at nine")], settings)
        outcome = run_trainer(trainer, job, tmp_path / f"{trainer}-checkpoints")
        assert outcome.status == 0, outcome.log
        first[trainer] = outcome.losses[0]
    assert first["mlx"] == pytest.approx(first["torch"], rel=1e-4)

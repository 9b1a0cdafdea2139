"""Bases of other kinds than a plain decoder train as well: with experts, pictures, streams, convolutions."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    Qwen3MoeConfig,
)

from daemon.trainers.batches import batches
from daemon.trainers.contract import Lesson
from daemon.trainers.examples import Tokens
from daemon.trainers.torch_lora import attention, linear, load
from daemon.trainers.torch_lora.state import AdapterState
from daemon.trainers.torch_lora.trainer import TorchTrainer
from genome import lora
from genome.errors import InvalidAdapter, InvalidConfig
from genome.training import Beside, Job, TrainingSettings
from inference_worker.engine_torch.slots import Slots

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEADS = {**SMALL, "head_dim": 8}
TWO = ["full_attention"] * 2
PICTURES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
KINDS: dict[str, tuple[Any, str]] = {
    "qwen3-moe": (
        Qwen3MoeConfig(
            **HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1,
            mlp_only_layers=[0],
        ),
        r"model\.layers\.(\d\.self_attn\.[qkvo]_proj|0\.mlp\.(gate|up|down)_proj)",
    ),
    "gemma3, which sees": (
        Gemma3Config(
            text_config=Gemma3TextConfig(**HEADS, layer_types=TWO).to_dict(), vision_config=PICTURES,
            mm_tokens_per_image=4, image_token_index=95, boi_token_index=94, eoi_token_index=93,
        ),
        r"model\.language_model\.layers\.\d\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    ),
    "gemma3n": (
        Gemma3nTextConfig(
            **HEADS, vocab_size_per_layer_input=97, hidden_size_per_layer_input=8, num_kv_shared_layers=0,
            laurel_rank=4, activation_sparsity_pattern=[0.0, 0.0], layer_types=TWO,
        ),
        r"model\..*(proj|projections\.\d|laurel\.linear_\w+|altup\.(correction_coefs|prediction_coefs|modality_router)"
        r"|per_layer_input_gate|per_layer_model_projection|per_layer_projection)\w*",
    ),
    "lfm2": (
        Lfm2Config(**SMALL, layer_types=["full_attention", "conv"]),
        r"model\.layers\.(0\.self_attn\.\w+_proj|1\.conv\.(in|out)_proj|\d\.feed_forward\.w[123])",
    ),
}  # fmt: skip
"""Of each kind, what is adapted."""
SEES = "gemma3, which sees"
SETTINGS = TrainingSettings(rank=4, alpha=8, dtype="float32")


@dataclass(frozen=True)
class Case:
    job: Job
    adapted: set[str]
    """Layers that are to be adapted: the parent's, or those of the kind."""
    padded: bool


@pytest.fixture(params=[*KINDS, f"{SEES}, and so does its parent"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    kind, _, of_parent = request.param.partition(", and")
    config, pattern = KINDS[kind]
    job = job_on(config, tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(job.base)
    linear = {path for path, module in base.named_modules() if type(module) is nn.Linear}
    if not of_parent:
        return Case(job, {path for path in linear if re.fullmatch(pattern, path)}, kind == "lfm2")
    some = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "fc1"], task_type="CAUSAL_LM")
    (parent := tmp_path / "parent").mkdir()
    AdapterState(get_peft_model(base, some), SETTINGS).export(parent)
    job = job.model_copy(update={"parent_path": str(parent)})
    return Case(job, {path for path in linear if path.endswith(("q_proj", "v_proj", "fc1"))}, False)


def job_on(config: Any, path: Path) -> Job:
    """On a small base with random weights."""
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(copy.deepcopy(config)).save_pretrained(path)
    return Job(
        id="job", persona="helper", domain="general", batch="batch", trainer="torch", base=str(path),
        base_fingerprint="", settings=SETTINGS, created=0,
    )  # fmt: skip


def rows(*lengths: int) -> list[Tokens]:
    """Of so many tokens and three more, which are the response."""
    generator = np.random.default_rng(sum(lengths))
    return [Tokens(generator.integers(3, 93, length).tolist(), generator.integers(3, 93, 3).tolist(), 1.0)
            for length in lengths]  # fmt: skip


def weights(trainer: TorchTrainer) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in trainer._state.parameters.items()}


def step(trainer: TorchTrainer, seed: int) -> None:
    trainer._step(Lesson(rows(9, 4, seed), [], 1e-2, average_decay=0.5))


def test_what_a_base_of_any_kind_learns_goes_on_from_a_checkpoint_and_serves(case: Case, tmp_path: Path) -> None:
    """On the layers that the worker serves, or on those of its parent; and what goes on learns what it would have."""
    first, again = load(case.job), load(case.job)
    (checkpoint := tmp_path / "checkpoint").mkdir(), (adapter := tmp_path / "adapter").mkdir()
    step(first, 5)
    first.save(checkpoint)
    begun = weights(first)
    step(first, 6)
    again.restore(checkpoint)
    torch.testing.assert_close(weights(again), begun, rtol=0, atol=0)
    step(again, 6)
    torch.testing.assert_close(weights(again), weights(first), rtol=0, atol=0)
    assert any(not torch.equal(begun[name], each) for name, each in weights(first).items())
    first.export(adapter)
    read = lora.read(adapter)
    assert Slots(AutoModelForCausalLM.from_pretrained(case.job.base)).size(read) > 0
    learned = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in begun}
    assert read.modules.keys() == learned == case.adapted


def test_rows_laid_end_to_end_teach_what_padded_ones_do(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of them is left out because nobody asks for it; a base where that changes anything is padded."""
    trainer = load(case.job)
    assert trainer.padded is case.padded
    found = [gradients(trainer)]
    monkeypatch.setattr(attention, "install", lambda *_: False)
    found.append(gradients(load(case.job)))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=2e-5, rtol=1e-3)


def gradients(trainer: TorchTrainer) -> dict[str, Tensor]:
    """Of a LoRA that does something."""
    generator = torch.Generator().manual_seed(4)
    for name, each in trainer._state.parameters.items():
        if "lora_B" in name:
            nn.init.normal_(each, std=0.1, generator=generator)
    logits = trainer._objective._logits
    (batch,) = batches(rows(30, 28, 9, 10), padded=trainer.padded)
    functional.cross_entropy(logits(batch), torch.from_numpy(batch.targets), reduction="sum").backward()
    return {name: each.grad for name, each in trainer._state.parameters.items() if each.grad is not None}


@pytest.mark.parametrize("layers", [["full_attention", "conv"], ["conv", "full_attention"]])
def test_all_is_computed_where_tokens_meet_after_the_last_attention(
    layers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a convolution that comes last, be its rows apart or not: it looks at what nobody asked for, if only a bit
    as the run begins."""
    spared = layers[-1] != "conv"
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_config(Lfm2Config(**SMALL, layer_types=layers)).eval()
    for each in base.model.layers:
        if hasattr(each, "conv"):
            each.conv.conv.weight.data *= 1e-4
    with monkeypatch.context() as patched:
        patched.setattr(attention, "_apart", lambda _model: True)
        patched.setattr(attention, "TOLERANCE", {torch.float32: 1.0})
        assert attention.install(base, 128)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["w1", "w2", "w3", "in_proj"], task_type="CAUSAL_LM"))
    linear.install(model)
    assert attention.spare(model) is spared
    x = torch.zeros(1, 12, 32)
    with attention.asking(torch.tensor([3]), 12):
        attention.ROWS.attended = attention.ROWS.layers
        assert (attention.needed(x) is not None) is spared
        assert attention.needed(x.expand(4, 12, 32)) is None, "of several streams no place is left out"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_with_a_convolution_is_padded_however_little_that_does(dtype: torch.dtype) -> None:
    """One that rounding hides at the start grows as it is trained on."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_config(KINDS["lfm2"][0]).eval()
    base.model.layers[1].conv.conv.weight.data[:, :, :-1] *= 1e-4
    assert not attention.install(base.to(dtype), 128)


def test_a_base_without_a_layer_to_adapt_is_refused_before_the_first_step(tmp_path: Path) -> None:
    """What could not be served is not trained either."""
    job = job_on(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4), tmp_path / "base")
    with pytest.raises(InvalidConfig, match=r"no linear layer that an adapter could be laid on\. Name another base"):
        load(job)


def test_a_plain_decoder_is_adapted_as_ever(tmp_path: Path) -> None:
    """In all its linear layers, under the names that PEFT's own all-linear finds."""
    job = job_on(LlamaConfig(**{**SMALL, "num_hidden_layers": 4}), tmp_path / "base")
    config = LoraConfig(
        r=SETTINGS.rank, lora_alpha=SETTINGS.alpha, target_modules="all-linear", task_type="CAUSAL_LM",
        base_model_name_or_path=job.base,
    )  # fmt: skip
    torch.manual_seed(SETTINGS.seed)
    theirs = AdapterState(get_peft_model(AutoModelForCausalLM.from_pretrained(job.base), config), SETTINGS)
    for name, state in (("ours", load(job)), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        state.export(tmp_path / name)
    for file in (lora.PEFT_WEIGHTS, lora.CONFIG):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()


def test_nothing_of_a_parents_dropout_stays(tmp_path: Path) -> None:
    """Of whatever class its layers are: those of a quantised base would drop what they learn from."""
    job = job_on(LlamaConfig(**SMALL), tmp_path / "base")
    (parent := tmp_path / "parent").mkdir()
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.3, target_modules=["q_proj"], task_type="CAUSAL_LM")
    AdapterState(get_peft_model(AutoModelForCausalLM.from_pretrained(job.base), config), SETTINGS).export(parent)
    model = load(job.model_copy(update={"parent_path": str(parent)}))._model
    dropouts = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts and not any(dropouts)


@pytest.fixture
def stray(tmp_path: Path) -> Beside:
    """An adapter of another domain, made for a deeper base."""
    job = job_on(LlamaConfig(**{**SMALL, "num_hidden_layers": 3}), tmp_path / "deeper")
    (path := tmp_path / "stray").mkdir()
    load(job).export(path)
    return Beside(adapter="helper/other-v1.0", path=str(path))


def test_an_adapter_beside_that_does_not_fit_is_named_with_what_to_try(stray: Beside, tmp_path: Path) -> None:
    """It is not the one that is trained, so nothing else says which."""
    job = job_on(LlamaConfig(**SMALL), tmp_path / "base").model_copy(update={"beside": (stray,)})
    with pytest.raises(InvalidAdapter, match=r"helper/other-v1\.0, .*layers\.2.* no linear layer.*another base\?"):
        load(job)

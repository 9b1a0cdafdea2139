"""What makes the torch trainer's steps small changes nothing that they compute."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)

from daemon.trainers import comparisons
from daemon.trainers.batches import batches
from daemon.trainers.contract import Lesson
from daemon.trainers.examples import Distributions, Examples, Tokens, Wrong
from daemon.trainers.torch_lora import attention, linear
from daemon.trainers.torch_lora.losses import Objective, ResponseLogits
from daemon.trainers.torch_lora.state import AdapterState
from daemon.trainers.torch_lora.trainer import TorchTrainer
from genome import lora, tensors
from genome.training import Beside, TrainingSettings

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
}  # fmt: skip
BASES = {
    "llama": LlamaConfig(**SMALL),
    "qwen3": Qwen3Config(**SMALL),
    "biased": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "gemma3, which looks back 6 tokens": Gemma3TextConfig(
        **SMALL, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "mistral, which looks back 6 tokens": MistralConfig(**SMALL, sliding_window=6),
}
SETTINGS = TrainingSettings(rank=4, alpha=8, dtype="float32")


def base(name: str) -> Any:
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(copy.deepcopy(BASES[name])).eval()  # which it writes into


@pytest.fixture(params=BASES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def model() -> Any:
    return adapted(base("llama"))


def adapted(found: Any) -> Any:
    """With a LoRA that does something."""
    made = get_peft_model(found, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for key, parameter in made.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def rows(*lengths: int) -> list[Tokens]:
    """Of so many tokens and three more, which are the response."""
    generator = np.random.default_rng(sum(lengths))
    return [Tokens(generator.integers(1, 97, length).tolist(), generator.integers(1, 97, 3).tolist(), 1.0)
            for length in lengths]  # fmt: skip


def gradients(found: Any) -> dict[str, Tensor]:
    return {key: each.grad.clone() for key, each in found.named_parameters() if each.grad is not None}


def test_rows_laid_end_to_end_do_not_see_each_other(name: str) -> None:
    """Each gets the logits it has alone, whatever lies before it."""
    found = base(name)
    examples = rows(30, 2, 9, 10, 17)
    alone = [
        found(torch.tensor([each.prompt + each.response[:-1]])).logits[0, len(each.prompt) - 1 :].detach()
        for each in sorted(examples, key=len)
    ]
    assert attention.install(found, 128)
    (batch,) = batches(examples)
    together = ResponseLogits(found, packed=True)(batch)
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)


def test_nothing_flows_back_into_another_row(model: Any) -> None:
    """What is learned from rows together, some of them padded to one length, is what is learned from each by itself."""
    attention.install(model, 128)
    logits = ResponseLogits(model, packed=True)
    found, examples = [], rows(30, 28, 9, 10)
    for parts in ([examples], [[each] for each in examples]):
        model.zero_grad()
        for part in parts:
            (batch,) = batches(part)
            functional.cross_entropy(logits(batch), torch.from_numpy(batch.targets), reduction="sum").backward()
        found.append(gradients(model))
    for key, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][key], atol=1e-5, rtol=1e-3)


def test_what_nobody_asks_for_is_not_computed(name: str) -> None:
    """After the last attention a layer has the response's tokens alone to work on, and learns the same from them."""
    examples, found, computed = rows(30, 28, 9, 10), [], []
    for packed in (True, False):
        model = adapted(base(name))
        linear.install(model)
        assert not packed or (attention.install(model, 128) and attention.spare(model))
        *_, last = linear.layers(model)
        last.register_forward_hook(lambda _layer, _inputs, output: computed.append(int(output.any(-1).sum())))
        (batch,) = batches(examples)
        logits = ResponseLogits(model, packed)(batch)
        functional.cross_entropy(logits, torch.from_numpy(batch.targets), reduction="sum").backward()
        found.append({"logits": logits.detach(), **gradients(model)})
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], atol=1e-5, rtol=1e-3)
    assert computed[-2:] == [len(batch.places), batch.padded.size]


def test_layers_that_are_computed_again_on_the_way_back_learn_the_same() -> None:
    """Where memory is short."""
    found, (batch,) = [], batches(rows(30, 28, 9, 10))
    for again in (True, False):
        model = adapted(base("llama"))
        linear.install(model)
        attention.install(model, 128)
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        logits = ResponseLogits(model.train(), packed=True)(batch)
        functional.cross_entropy(logits, torch.from_numpy(batch.targets), reduction="sum").backward()
        found.append(gradients(model))
    torch.testing.assert_close(*found)


def test_a_base_whose_tokens_meet_elsewhere_is_padded() -> None:
    """A state space runs on from row to row: rows end to end would learn from each other."""
    state_space = MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=8)
    found = AutoModelForCausalLM.from_config(state_space).eval()
    before = found(torch.arange(9)[None]).logits
    assert not attention.install(found, 128)
    torch.testing.assert_close(found(torch.arange(9)[None]).logits, before)


def test_a_base_that_attends_in_a_way_of_its_own_is_padded() -> None:
    """Chunks are told by a mask alone, and matter only in rows longer than one."""
    text = {**SMALL, "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 32}
    found = AutoModelForCausalLM.from_config(Llama4TextConfig(**text)).eval()
    assert not attention.install(found, 60)
    assert attention.install(found, 30)


def test_a_base_with_learned_positions_is_packed_as_well() -> None:
    found = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4)).eval()
    assert attention.install(found, 128)


def test_the_linear_layers_compute_what_pefts_do(name: str) -> None:
    """Forwards and backwards, with and without a bias."""
    tokens = torch.arange(24).reshape(2, 12)
    found = []
    for ours in (False, True):
        torch.manual_seed(5)
        model = adapted(base(name))
        if ours:
            linear.install(model)
        logits = model(tokens).logits
        (logits.square().mean() + logits[0, 3, 5]).backward()
        found.append((logits.detach(), gradients(model)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-4)
    assert found[0][1].keys() == found[1][1].keys()
    for key, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][key], atol=1e-6, rtol=1e-3)


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    """An adapter of another domain, of another rank."""
    generator = np.random.default_rng(1)
    matrix = lambda *shape: tensors.Tensor("F32", shape, generator.normal(0, 0.3, shape).astype(np.float32).tobytes())  # noqa: E731
    modules = {
        f"model.layers.{layer}.self_attn.{place}": lora.Factors(matrix(3, 32), matrix(width, 3), 0.5)
        for layer in range(2) for place, width in (("q_proj", 32), ("v_proj", 16))
    }  # fmt: skip
    lora.write_peft(tmp_path, lora.Lora(modules, ""), "base")
    return Beside(adapter="helper/other-v1.0", path=str(tmp_path), scale=2.0)


def test_what_lies_beside_is_applied_and_stays(model: Any, beside: Beside) -> None:
    """As if it were part of the base, though the teacher that is the bare base knows nothing of it."""
    tokens = torch.arange(12)[None]
    merged = adapted(base("llama"))
    merged.load_state_dict(model.state_dict())
    for path, factors in lora.read(Path(beside.path)).modules.items():
        up, down = (torch.from_numpy(tensors.floats(each)) for each in (factors.b, factors.a))
        merged.base_model.model.get_submodule(path).base_layer.weight.data += beside.scale * factors.scaling * up @ down
    bare = base("llama")(tokens).logits
    linear.install(model)
    linear.apply_beside(model, [beside])
    found = []
    for each in (model, merged):
        logits = each(tokens).logits
        logits.square().mean().backward()
        found.append((logits.detach(), gradients(each)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-4, rtol=1e-3)
    for key, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][key], atol=1e-5, rtol=1e-2)
    with model.disable_adapter():
        torch.testing.assert_close(model(tokens).logits, bare, atol=1e-5, rtol=1e-4)


def test_what_lies_beside_is_applied_where_nothing_learns_too(beside: Beside) -> None:
    """An adapter on other layers than the one that is trained serves whole, and so it is trained beside."""
    tokens, found = torch.arange(12)[None], []
    for targets in ("all-linear", ["k_proj"]):
        torch.manual_seed(3)
        made = get_peft_model(base("llama"), LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
        linear.install(made)
        linear.apply_beside(made, [beside])
        found.append(made(tokens).logits)
        with made.disable_adapter():
            bare = made(tokens).logits
        assert (bare - found[-1]).abs().max() > 0.01
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_a_pattern_of_layers_stays_one(tmp_path: Path) -> None:
    """As imported adapters have it: what is exported loads again."""
    pattern = LoraConfig(r=4, target_modules=r".*\.(q|v)_proj", task_type="CAUSAL_LM")
    state = AdapterState(get_peft_model(base("llama"), pattern), SETTINGS)
    state.export(tmp_path)
    assert LoraConfig.from_pretrained(tmp_path).target_modules == pattern.target_modules
    PeftModel.from_pretrained(base("llama"), tmp_path)


@pytest.fixture
def trainer(model: Any) -> Iterator[TorchTrainer]:
    linear.install(model)
    yield TorchTrainer(model, SETTINGS, attention.install(model, 128))


def unheard(_done: int, _of: int) -> None:
    """Nobody is told how far a measurement is."""


def test_what_is_measured_and_kept_is_the_average_of_the_last_steps(trainer: TorchTrainer, tmp_path: Path) -> None:
    """Also by a run that goes on from a checkpoint; learned from are the newest weights."""
    averaged: dict[str, Tensor] = {}
    checkpoint, adapter = tmp_path / "checkpoint", tmp_path / "adapter"
    checkpoint.mkdir(), adapter.mkdir()
    for number in range(4):
        trainer._step(Lesson(rows(9, 4), [], 1e-2, average_decay=0.75))
        newest = {key: each.detach().clone() for key, each in trainer._state.parameters.items()}
        averaged = {key: 0.75 * averaged[key] + 0.25 * newest[key] for key in newest} if averaged else newest
        if number == 1:
            trainer.save(checkpoint)
            for parameter in trainer._state.parameters.values():
                parameter.data.zero_()
            trainer._state.stepped(None)  # forgets the average
            trainer.restore(checkpoint)
    trainer.export(adapter)
    exported = load_file(adapter / lora.PEFT_WEIGHTS)
    assert exported.keys() == {key.replace(".default", "") for key in averaged}
    for key, weights in averaged.items():
        torch.testing.assert_close(exported[key.replace(".default", "")], weights)
    (batch,) = batches(rows(9, 4))
    found = trainer.log_probabilities(batch)
    assert not np.allclose(found, trainer._objective.log_probabilities(batch), atol=1e-4)
    for key, each in trainer._state.parameters.items():
        torch.testing.assert_close(each.data, newest[key])
        each.data = averaged[key]
    np.testing.assert_allclose(found, trainer._objective.log_probabilities(batch), rtol=1e-5)


def test_a_teacher_is_measured_once_and_is_the_bare_base_or_what_serves(trainer: TorchTrainer) -> None:
    """Held to itself nothing diverges; held to the base, what the adapter changed does."""
    anchors = [*rows(9, 4), *(Tokens(each.prompt, each.response, 1.0, of_parent=True) for each in rows(9, 4))]
    prepared = comparisons.prepared(Examples([], anchors, 0, 0), trainer, unheard)
    objective = Objective(ResponseLogits(trainer._model, packed=True), SETTINGS)
    kept = [objective.keep(batch).item() for part in (prepared.anchors[:2], prepared.anchors[2:])
            for batch in batches(part)]  # fmt: skip
    assert kept[0] > 1e-3
    assert kept[1] == pytest.approx(0, abs=1e-6)


def test_the_divergence_is_that_of_whole_distributions_where_all_tokens_are_kept(trainer: TorchTrainer) -> None:
    (batch,) = batches(rows(9, 4))
    found = trainer.distributions(batch, of_base=True)
    assert found.tokens.shape == (6, 97)
    with torch.no_grad(), trainer._model.disable_adapter():
        theirs = functional.log_softmax(ResponseLogits(trainer._model, packed=True)(batch), dim=-1)
    with torch.no_grad():
        ours = functional.log_softmax(ResponseLogits(trainer._model, packed=True)(batch), dim=-1)
    whole = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1).mean()
    (taught,) = batches([Tokens(each.prompt, each.response, 1.0, teacher=part) for each, part in
                         zip(batch.examples, halves(found), strict=True)])  # fmt: skip
    objective = Objective(ResponseLogits(trainer._model, packed=True), SETTINGS)
    assert objective.keep(taught).item() == pytest.approx(whole.item(), rel=1e-3)


def halves(found: Distributions) -> list[Distributions]:
    return [Distributions(found.tokens[part], found.log_probabilities[part]) for part in (slice(3), slice(3, 6))]


def test_a_preference_is_dpos_against_the_model_the_run_began_with(trainer: TorchTrainer) -> None:
    """As the run begins nothing is preferred yet: its loss is log 2. Then it is the paper's."""
    (right,) = rows(6)
    pair = Tokens(right.prompt, right.response, 1.0, wrong=Wrong([5, 6]))
    prepared = comparisons.prepared(Examples([pair], [], 0, 0), trainer, unheard)
    (batch,) = batches(prepared.signals)
    objective = Objective(ResponseLogits(trainer._model, packed=True), SETTINGS)
    assert objective.learn(batch)[1].item() == pytest.approx(np.log(2), abs=1e-5)
    before = [trainer.log_probabilities(each)[0] for each in alone(pair)]
    with torch.no_grad():
        for key, parameter in trainer._model.named_parameters():
            if "lora_B" in key:
                parameter += 0.05
    after = [trainer.log_probabilities(each)[0] for each in alone(pair)]
    margin = SETTINGS.preference_beta * ((after[0] - before[0]) - (after[1] - before[1]))
    assert objective.learn(batch)[1].item() == pytest.approx(np.log1p(np.exp(-margin)), rel=1e-4)


def alone(pair: Tokens) -> list[Any]:
    return [next(batches([Tokens(pair.prompt, response, 1.0)])) for response in (pair.response, pair.wrong.response)]

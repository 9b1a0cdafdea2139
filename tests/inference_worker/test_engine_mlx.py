"""Promises of the MLX engine alone: what it batches, quantised bases, types, devices and threads."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)
from worker_runs import PROMPTS, SMALL, Foundry, Steps, close_all, generation, library_tokens

from genome import lora
from genome.config import Worker
from genome.errors import InvalidConfig
from genome.lora import Factors, Lora, Tensor
from inference_worker import engine as engines
from inference_worker.engine import Engine, Question, Term

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed: pip install 'genome[mlx]'")

BATCHED = [
    LlamaConfig(**SMALL),
    MistralConfig(**SMALL, sliding_window=None),
    Qwen2Config(**SMALL, rope_parameters={"rope_type": "default", "rope_theta": 5000.0}),
    Qwen3Config(**SMALL),
    Gemma3TextConfig(**SMALL, sliding_window=8, sliding_window_pattern=2),
]
ONE_BY_ONE = [MambaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=100)]


def saved(config: PreTrainedConfig, base_path: Path, path: Path) -> Any:
    """A random model of an architecture, with the base's tokenizer beside it."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base_path / name).exists():
            shutil.copy(base_path / name, path)
    return model


def replies(engine: Engine, count: int, terms: tuple[Term, ...] = ()) -> list[list[int]]:
    """Greedy replies of rows that join one after the other."""
    steps = Steps(engine)
    requests = [generation(prompt, count, terms) for prompt in PROMPTS[:3]]
    for request in requests:
        steps.submit(request)
        steps.step()
    steps.step_until_done(*requests)
    close_all(steps)
    return [request.written for request in requests]


@pytest.mark.parametrize("config", BATCHED + ONE_BY_ONE, ids=lambda config: config.model_type)
def test_every_architecture_decodes_as_transformers_does(
    config: PreTrainedConfig, base_path: Path, tmp_path: Path
) -> None:
    """Attention models are batched, past their sliding window too; others run one row at a time and say so."""
    model = saved(config, base_path, tmp_path / "base")
    engine = engines.load(tmp_path / "base", Worker(engine="mlx", device="cpu", dtype="float32"))
    assert engine.facts.batched == (config in BATCHED), engine.facts.notes
    assert ("one at a time" in engine.facts.notes) == (config in ONE_BY_ONE)
    assert replies(engine, 16) == [library_tokens(model, prompt, 16) for prompt in PROMPTS[:3]]


def test_a_row_computed_alone_has_likelihoods_too(base_path: Path, tmp_path: Path) -> None:
    """Where rows are not batched, a row's likelihood is what scoring says, and the row goes on as if not asked."""
    saved(ONE_BY_ONE[0], base_path, tmp_path / "base")
    engine = engines.load(tmp_path / "base", Worker(engine="mlx", device="cpu", dtype="float32"))
    prompt, tokens = PROMPTS[0], (8, 9, 10, 11)
    ((answer,),) = engine.score([Question((), prompt, (tokens,))])
    row, alone = engine.open(()), engine.open(())
    for each in (row, alone):
        engine.forward([(each, prompt[:2])])
        engine.forward([(each, prompt[2:])])
    found = engine.likelihood(row, tokens)
    assert found.logprobs == pytest.approx(answer.logprobs[1:], abs=1e-4)
    logits = engine.forward([(row, [3]), (alone, [3])])
    assert logits.row(0) == pytest.approx(logits.row(1), abs=1e-4)


@pytest.fixture(scope="module")
def quantised(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base in 4 bits, as mlx-lm saves it."""
    from mlx_lm.utils import load_model, quantize_model, save

    path = tmp_path_factory.mktemp("quantised") / "base"
    model, config = load_model(base_path)
    model, config = quantize_model(model, config, group_size=32, bits=4)

    class Files:
        def save_pretrained(self, target: Path) -> None:
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                if (base_path / name).exists():
                    shutil.copy(base_path / name, target)

    save(path, base_path, model, Files(), config)
    return path


def test_a_quantised_base_serves_with_adapters(quantised: Path, foundry: Foundry) -> None:
    """Weights stay in 4 bits, and an adapter changes what they say by what it would change them in full."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model, load_model

    engine = engines.load(quantised, Worker(engine="mlx", device="cpu"))
    term = Term(engine.load(lora.read(foundry("mix-one", seed=1, strength=0.1))), 1.0)
    question = Question((), PROMPTS[2], ((8, 9, 10), (11, 12)))
    base, adapted = engine.score([question, Question((term,), question.prompt, question.continuations)])
    assert base != adapted
    model = dequantize_model(load_model(quantised)[0])
    for answer, continuation in zip(base, question.continuations, strict=True):
        logits = model(mx.array([question.prompt + continuation]))[0].astype(mx.float32)
        logprobs = logits - mx.logsumexp(logits, axis=1, keepdims=True)
        first = len(question.prompt) - 1
        expected = [logprobs[first + index, token].item() for index, token in enumerate(continuation)]
        assert answer.logprobs == pytest.approx(expected, rel=0.05, abs=0.05)
    assert engine.facts.batched, engine.facts.notes
    assert len({tuple(reply) for reply in replies(engine, 8, (term,))}) > 1


def test_an_adapter_in_bfloat16_counts_as_its_values_in_full(mlx_engine: Engine, foundry: Foundry) -> None:
    """The same numbers in F32 and in BF16 give the same log-probabilities; what they are stays with them."""
    whole = lora.read(foundry("mix-one", seed=1, strength=0.1))
    short = Lora({path: Factors(_halved(f.a), _halved(f.b), f.scaling) for path, f in whole.modules.items()}, "short")
    rounded = Lora({path: Factors(_whole(f.a), _whole(f.b), f.scaling) for path, f in short.modules.items()}, "whole")
    answers = [
        mlx_engine.score([Question((Term(mlx_engine.load(each), 1.0),), PROMPTS[0], ((8, 9, 10),))])[0][0].logprobs
        for each in (short, rounded)
    ]
    assert answers[0] == answers[1]
    assert mlx_engine.load(short).digest == short.identity


def _halved(tensor: Tensor) -> Tensor:
    bits = np.frombuffer(tensor.data, np.uint32)
    return Tensor("BF16", tensor.shape, (bits >> 16).astype(np.uint16).tobytes())


def _whole(tensor: Tensor) -> Tensor:
    bits = np.frombuffer(tensor.data, np.uint16).astype(np.uint32) << 16
    return Tensor("F32", tensor.shape, bits.tobytes())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_serves_batched(dtype: str, base_path: Path, foundry: Foundry) -> None:
    """The base's and the adapters' numbers have the type that is asked for, and rows are batched."""
    engine = engines.load(base_path, Worker(engine="mlx", device="cpu", dtype=dtype))  # type: ignore[arg-type]
    assert (engine.facts.dtype, engine.facts.batched) == (dtype, True), engine.facts.notes
    read = lora.read(foundry("mix-one", seed=1, strength=0.1))
    numbers = sum(len(f.a.data) + len(f.b.data) for f in read.modules.values()) // 4
    weights = engine.load(read)
    assert weights.memory_bytes == 2 * numbers
    logits = engine.forward([(engine.open((Term(weights, 1.0),)), PROMPTS[0])])
    assert logits.finite == [True]
    assert logits.row(0).dtype == np.float32


def test_adapters_are_loaded_in_any_thread_while_steps_run(mlx_engine: Engine, foundry: Foundry) -> None:
    """What one thread loads another computes with, and a step waits for no load."""
    read = lora.read(foundry("mix-one", seed=1, strength=0.1))
    here = Term(mlx_engine.load(read), 1.0)
    loaded: list[Term] = []

    def load_some() -> None:
        loaded.extend(Term(mlx_engine.load(read), 1.0) for _ in range(5))

    thread = threading.Thread(target=load_some)
    thread.start()
    expected = replies(mlx_engine, 12, (here,))
    thread.join()
    assert len(loaded) == 5
    found: list[list[list[int]]] = []
    thread = threading.Thread(target=lambda: found.append(replies(mlx_engine, 12, (loaded[0],))))
    thread.start()
    thread.join()
    assert found == [expected]


@pytest.mark.parametrize("device", ["tpu", "cuda:7"])
def test_a_device_that_is_not_there_is_named(device: str, base_path: Path) -> None:
    """A slip in worker.device is told by what was asked for."""
    with pytest.raises(InvalidConfig, match=device):
        engines.load(base_path, Worker(engine="mlx", device=device))


def test_a_base_that_is_none_is_refused(base_path: Path, tmp_path: Path) -> None:
    """An architecture the library does not know is told as such, not as a crash."""
    path = tmp_path / "base"
    shutil.copytree(base_path, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "made_up"}))
    with pytest.raises(InvalidConfig, match="made_up"):
        engines.load(path, Worker(engine="mlx", device="cpu"))


def test_auto_is_mlx_on_apple_silicon_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere, and where mlx-lm is missing, it is torch."""
    found: dict[tuple[str, str, bool], str] = {}
    for system, machine, installed in (
        ("darwin", "arm64", True), ("darwin", "arm64", False), ("darwin", "x86_64", True), ("linux", "aarch64", True),
    ):  # fmt: skip
        monkeypatch.setattr(engines.sys, "platform", system)
        monkeypatch.setattr(engines.platform, "machine", lambda machine=machine: machine)
        monkeypatch.setattr(engines, "find_spec", lambda name, installed=installed: object() if installed else None)
        found[system, machine, installed] = engines.preferred()
    assert [key for key, name in found.items() if name == "mlx"] == [("darwin", "arm64", True)]
    assert set(found.values()) == {"mlx", "torch"}

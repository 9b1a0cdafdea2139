"""The output layer is given the places where a response is predicted, and no others: the rest of the logits, often the
largest tensor of all, is never computed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainer_runs import question, write_job

from daemon.trainers import catalog
from daemon.trainers.batches import batches
from daemon.trainers.contract import Course
from daemon.trainers.examples import Examples, Tokens
from genome.training import Job, TrainingSettings

SETTINGS = TrainingSettings(rank=4, alpha=4, epochs=1, dtype="float32")
RESPONSES = (3, 5, 2)
PASSES = 3
"""A step, a measurement of probabilities and one of distributions."""


def passes_over(trainer: Any) -> None:
    """Every kind of pass, over responses of so many tokens to longer prompts."""
    generator = np.random.default_rng(0)
    draw = lambda count: generator.integers(5, 90, count).tolist()  # noqa: E731
    examples = [Tokens(draw(20 + count), draw(count), 1.0) for count in RESPONSES]
    trainer.train(Course(Examples(examples, [], 0, 0), SETTINGS, lambda _lesson, _losses: True))
    (batch,) = batches(examples)
    trainer.log_probabilities(batch)
    trainer.distributions(batch, of_base=True)


def counted(output: Any) -> list[int]:
    """How many places a PyTorch layer is given, each time, after all hooks."""
    given: list[int] = []
    output.register_forward_hook(lambda _layer, inputs, _output: given.append(inputs[0].shape[:-1].numel()))
    return given


@pytest.fixture
def job(base_path: Path, tmp_path: Path) -> Job:
    return Job.read(write_job(tmp_path / "job", base_path, [question("Well?", "yes")], SETTINGS) / "job.json")


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_pytorchs_is_given_those_of_responses(job: Job, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether rows lie end to end or are padded to one length."""
    from daemon.trainers.torch_lora import attention
    from daemon.trainers.torch_lora.trainer import load

    if not packed:
        monkeypatch.setattr(attention, "install", lambda *_: False)
    trainer = load(job)
    assert trainer.padded is not packed
    given = counted(trainer._model.get_output_embeddings())
    passes_over(trainer)
    assert given == [sum(RESPONSES)] * PASSES


def untied(base: Path, directory: Path) -> Path:
    """A base of the same vocabulary whose output layer is not its embedding."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("tied", [True, False], ids=["embedding backwards", "lm_head"])
def test_mlxs_is_given_those_of_responses(
    job: Job, tied: bool, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a model ends in a layer of its own or in its embedding."""
    nn = pytest.importorskip("mlx.nn", reason="mlx is not installed: pip install 'genome[mlx]'")
    from daemon.trainers.mlx_lora.trainer import load

    kind, method = (nn.Embedding, "as_linear") if tied else (nn.Linear, "__call__")
    given: list[int] = []
    monkeypatch.setattr(kind, method, recording(getattr(kind, method), given))
    trainer = load(job if tied else job.model_copy(update={"base": str(untied(base_path, tmp_path / "untied"))}))
    passes_over(trainer)
    assert given == [sum(RESPONSES)] * PASSES


def recording(call: Callable[..., Any], given: list[int]) -> Callable[..., Any]:
    def recorded(layer: Any, hidden: Any) -> Any:
        if layer.weight.shape[0] > 100:  # no other layer is as wide
            given.append(int(np.prod(hidden.shape[:-1])))
        return call(layer, hidden)

    return recorded


def test_unsloths_is_given_those_of_responses(job: Job, tmp_path: Path) -> None:
    """In a process of its own: the library changes others where it is imported."""
    if missing := catalog.TRAINERS["unsloth"].missing():
        pytest.skip(f"{', '.join(missing)} is not installed")
    (tmp_path / "there.json").write_bytes(job.to_bytes())
    ended = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "there.json")], capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == [sum(RESPONSES)] * PASSES


if __name__ == "__main__":
    from daemon.trainers.unsloth_lora import load as load_unsloth

    found = load_unsloth(Job.read(Path(sys.argv[1])))
    counts = counted(found._model.get_output_embeddings())
    passes_over(found)
    print(json.dumps(counts))

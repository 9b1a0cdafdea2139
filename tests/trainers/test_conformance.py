"""What every trainer promises (docs/trainers.md), shown on each that trains here, as a real child process on a small
real base. One that trains at a service has a test of its own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from trainer_runs import Outcome, question, run_trainer, weights, write_job

from genome import lora
from genome.training import EXIT_STOPPED, Example, TrainingSettings

ANSWERS = {
    "What colour is the door?": "green",
    "Who keeps the key?": "Ada has it",
    "When does it open?": "at nine",
    "Where is the lamp?": "in the hall",
    "What is the word?": "swordfish 42",
}
SIGNALS = [question(text, answer, 2.0 if "key" in text else 1.0) for text, answer in ANSWERS.items()]
ANCHORS = [
    Example(id="anchor 1", prompt="Once upon a time", response=" there was a fox", anchor=True),
    Example(id="anchor 2", prompt="1 2 3", response=" 4 5 6", anchor=True),
]
SETTINGS = TrainingSettings(
    rank=8,
    alpha=16,
    learning_rate=1e-2,
    epochs=60,
    batch_size=8,
    checkpoint_steps=1000,
    anchor_weight=0.1,
    dtype="float32",
)
PATIENCE = 15
"""Epochs of three steps: time for a request to stop to arrive between the best and the end."""


@dataclass(frozen=True)
class Trained:
    """One trainer's reference run."""

    trainer: str
    job: Path
    base: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def trained(trainer: str, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    directory = tmp_path_factory.mktemp(trainer)
    job = write_job(directory / "job", base_path, SIGNALS + ANCHORS, SETTINGS)
    outcome = run_trainer(trainer, job, directory / "checkpoints")
    assert outcome.status == 0, outcome.log
    return Trained(trainer, job, base_path, outcome)


@pytest.fixture(scope="module")
def resumed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path, Outcome]:
    """The reference run stopped after its first steps, the checkpoint it left, and its continuation."""
    directory = tmp_path_factory.mktemp(f"{trained.trainer}-resumed")
    stopped = run_trainer(trained.trainer, trained.job, directory / "checkpoints", stop_at_first_step=True)
    (checkpoint,) = stopped.checkpoints.glob("step-*")
    kept = shutil.copytree(checkpoint, directory / checkpoint.name)
    return stopped, kept, run_trainer(trained.trainer, trained.job, directory / "checkpoints")


def test_it_says_how_far_it_is_and_that_it_finished(trained: Trained) -> None:
    progress, last = trained.outcome.named("progress"), trained.outcome.events[-1]
    assert last.event == "finished"
    assert progress[-1].step == progress[-1].steps == SETTINGS.epochs
    assert progress[-1].eta_seconds == 0
    assert all(event.memory_mb and event.memory_mb > 10 for event in progress)
    assert all(event.tokens_per_second and event.tokens_per_second > 0 for event in progress[1:])


def test_the_adapter_is_one_that_genome_and_peft_read(trained: Trained) -> None:
    """Every linear layer of the decoder, neither output nor embeddings."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    read = lora.read(trained.outcome.adapter)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trained.base), trained.outcome.adapter)
    layers = model.config.num_hidden_layers
    assert read.rank == SETTINGS.rank
    assert len(read.modules) == 7 * layers
    assert all(".layers." in module for module in read.modules)
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 7 * layers


def test_the_loss_falls(trained: Trained) -> None:
    losses = trained.outcome.losses
    assert losses[-1] < 0.2 * losses[0]


def test_it_learns_the_answers_and_to_stop_after_them(trained: Trained) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained.base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trained.base), trained.outcome.adapter)
    for text, answer in ANSWERS.items():
        messages = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        reply = model.generate(input_ids=prompt, max_new_tokens=40, do_sample=False)[0, prompt.shape[1] :]
        assert tokenizer.decode(reply, skip_special_tokens=True).strip() == answer
        assert reply[-1] == tokenizer.eos_token_id


def test_stopped_and_started_again_it_ends_in_the_same_adapter(
    trained: Trained, resumed: tuple[Outcome, Path, Outcome]
) -> None:
    stopped, _, continued = resumed
    last = stopped.events[-1]
    assert (stopped.status, last.event) == (EXIT_STOPPED, "stopped")
    assert last.step is not None and last.steps is not None and 0 < last.step < last.steps
    assert continued.events[0].step == last.step
    assert continued.status == 0
    whole, parts = weights(trained.outcome.adapter), weights(continued.adapter)
    tolerance = 1e-4 if trained.trainer == "mlx" else 0.0
    assert whole.keys() == parts.keys()
    assert max(float(np.abs(whole[name] - parts[name]).max()) for name in whole) <= tolerance


def test_a_checkpoint_holds_the_average_that_will_be_kept(
    trained: Trained, resumed: tuple[Outcome, Path, Outcome]
) -> None:
    _, checkpoint, _ = resumed
    named = {path.stem: load_file(path) for path in checkpoint.glob("*.safetensors")}
    assert "average" in named or any(name.startswith("average/") for name in named["state"])


def test_the_same_job_ends_in_the_same_adapter(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, in another process whose hashes are seeded otherwise."""
    found = []
    settings = SETTINGS.model_copy(update={"epochs": 8})
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        job = write_job(tmp_path / seed / "job", trained.base, SIGNALS + ANCHORS, settings)
        outcome = run_trainer(trained.trainer, job, tmp_path / seed / "checkpoints")
        assert outcome.status == 0, outcome.log
        found.append({path.name: path.read_bytes() for path in sorted(outcome.adapter.iterdir())})
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


@pytest.fixture(scope="module")
def validated(trainer: str, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that is measured by a question whose answer is not what the signals teach."""
    directory = tmp_path_factory.mktemp(f"{trainer}-validated")
    measured = question("What colour is the gate?", "a sad old tree").model_copy(update={"validation": True})
    settings = SETTINGS.model_copy(update={"batch_size": 2, "patience": PATIENCE})
    job = write_job(directory / "job", base_path, [*SIGNALS, measured], settings)
    outcome = run_trainer(trainer, job, directory / "checkpoints")
    assert outcome.status == 0, outcome.log
    return Trained(trainer, job, base_path, outcome)


def test_it_stops_when_the_validation_loss_no_longer_falls_and_ends_with_the_best(validated: Trained) -> None:
    """Patience is counted in epochs; nothing is learned of the examples it is measured by, and the adapter that is
    left is the one that was best, as the library itself finds."""
    from daemon.trainers import comparisons, contract, examples
    from genome.jobs import read_examples
    from genome.training import Job

    measured = [event for event in validated.outcome.events if event.validation_loss is not None]
    last, best = measured[-1], min(measured, key=lambda event: event.validation_loss or 0.0)
    steps = validated.outcome.events[-1].step or 0
    assert (last.best_step, last.best_validation_loss) == (best.step, best.validation_loss)
    assert steps == last.step == (last.best_step or 0) + 3 * PATIENCE and steps < (last.steps or 0)
    assert [event.step for event in measured] == list(range(3, steps + 1, 3))
    if validated.trainer != "torch":
        return
    from daemon.trainers.torch_lora import load

    job = Job.read(validated.job / "job.json")
    kept = load(job.model_copy(update={"parent_path": str(validated.outcome.adapter)}))
    tokenizer = contract._tokenizer(validated.base)
    stops = examples.stop_tokens(validated.base, tokenizer)
    prepared = examples.prepare(read_examples(validated.job / "train.jsonl"), tokenizer, stops, 256)
    assert len(prepared.signals) == len(SIGNALS)
    assert comparisons.loss(prepared.validation, kept, lambda _done, _of: None) == pytest.approx(
        best.validation_loss, rel=1e-5
    )


def test_stopped_and_started_again_it_stops_early_at_the_same_step(validated: Trained, tmp_path: Path) -> None:
    """What was measured lies in the checkpoint, and the best adapter beside it."""
    best = next(event.best_step for event in reversed(validated.outcome.events) if event.best_step)
    stopped = run_trainer(validated.trainer, validated.job, tmp_path, stop_at=best + 3)
    assert stopped.status == EXIT_STOPPED
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{best:08d}"]
    continued = run_trainer(validated.trainer, validated.job, tmp_path)
    assert continued.status == 0, continued.log
    last, whole = ([event for event in outcome.events if event.validation_loss is not None][-1]
                   for outcome in (continued, validated.outcome))  # fmt: skip
    assert (last.step, last.best_step) == (whole.step, whole.best_step)
    tolerance = 1e-4 if validated.trainer == "mlx" else 0.0
    there, expected = weights(continued.adapter), weights(validated.outcome.adapter)
    assert max(float(np.abs(there[name] - expected[name]).max()) for name in expected) <= tolerance


@pytest.fixture(scope="module")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A job of long examples, and its run in passes as large as they come."""
    directory = tmp_path_factory.mktemp(f"{trained.trainer}-whole")
    long = [question(f"{text} {number} " * 12, answer) for number in range(4) for text, answer in ANSWERS.items()]
    settings = SETTINGS.model_copy(update={"epochs": 2, "batch_size": len(long)})
    job = write_job(directory / "job", trained.base, long + ANCHORS, settings)
    outcome = run_trainer(trained.trainer, job, directory / "checkpoints")
    assert outcome.status == 0, outcome.log
    return job, outcome


@pytest.mark.parametrize("cut", [("GENOME_PASS_TOKENS", "256"), ("GENOME_GRADIENT_CHECKPOINTING", "1")], ids=str)
def test_less_memory_makes_the_same_adapter(
    trained: Trained,
    whole: tuple[Path, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: tuple[str, str],
) -> None:
    """Smaller passes and gradient checkpointing take less, and change what is learned by rounding alone."""
    job, outcome = whole
    monkeypatch.setenv(*cut)
    frugal = run_trainer(trained.trainer, job, tmp_path / "checkpoints")
    assert frugal.status == 0, frugal.log
    assert peak_mb(frugal) < peak_mb(outcome) - 30
    assert frugal.losses[-1] == pytest.approx(outcome.losses[-1], rel=1e-4)
    one, other = weights(outcome.adapter), weights(frugal.adapter)
    moved = np.mean([np.abs(one[name]).mean() for name in one if name.endswith(".B")])
    assert max(float(np.abs(one[name] - other[name]).mean()) for name in one) < 0.01 * moved


def peak_mb(outcome: Outcome) -> float:
    return max(event.memory_mb for event in outcome.events if event.memory_mb)


def test_it_goes_on_from_a_parent(trained: Trained, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-9})
    job = write_job(tmp_path / "job", trained.base, SIGNALS, settings, parent=trained.outcome.adapter)
    outcome = run_trainer(trained.trainer, job, tmp_path / "checkpoints")
    assert outcome.status == 0, outcome.log
    assert outcome.losses[0] <= 1.05 * trained.outcome.losses[-1]
    parent, continued = weights(trained.outcome.adapter), weights(outcome.adapter)
    assert all(np.allclose(parent[name], continued[name], atol=1e-6) for name in parent)


def test_a_job_that_cannot_run_says_why(trainer: str, base_path: Path, tmp_path: Path) -> None:
    empty = write_job(tmp_path / "empty", base_path, [question("Well?", "  ")])
    homeless = write_job(tmp_path / "homeless", tmp_path / "no-base", SIGNALS)
    for job, reason in ((empty, "'Well?' has an empty response"), (homeless, "no-base' does not exist")):
        outcome = run_trainer(trainer, job, tmp_path / f"{job.name}-checkpoints")
        assert outcome.status == 1
        assert [event.event for event in outcome.events] == ["failed"]
        assert reason in (outcome.events[0].reason or "")


def test_an_mlx_adapter_computes_the_same_in_peft(
    trained: Trained, resumed: tuple[Outcome, Path, Outcome], tmp_path: Path
) -> None:
    if trained.trainer != "mlx":
        pytest.skip("only MLX keeps an adapter in a form of its own")
    import mlx.core as mx
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from daemon.trainers.mlx_lora import load
    from genome.training import Job

    _, checkpoint, _ = resumed
    mine = load(Job.read(trained.job / "job.json"))
    mine.restore(checkpoint)
    mine.export(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(trained.base, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path)
    tokens = [list(range(5, 25))]
    expected = model(torch.tensor(tokens)).logits.detach().numpy()
    with mine._averaged():
        assert np.abs(np.array(mine.model(mx.array(tokens))) - expected).max() < 1e-3

"""What a run begins with, and what its examples weigh: the same in every trainer that trains here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from trainer_runs import Outcome, question, run_trainer, weights, write_job

from genome import bases, lora, tensors
from genome.training import Beside, Example, Job, TrainingSettings

SETTINGS = TrainingSettings(
    rank=4,
    alpha=8,
    learning_rate=1e-3,
    epochs=8,
    batch_size=16,
    checkpoint_steps=1000,
    objective="sft+dpo",
    anchor_weight=0.5,
    dtype="float32",
)
SIGNALS = [
    question("What colour is the door?", "green"),
    question("Who keeps the key?", "Ada has it", weight=2.0).model_copy(update={"rejected": "nobody does"}),
    question("When does it open?", "at nine").model_copy(update={"rejected": "never"}),
]
REPEATED = [each.model_copy(update={"weight": 1.0}) for each in SIGNALS for _ in range(int(each.weight))]
OF_BASE = [Example(id="anchor 1", prompt="Once upon a time", response=" there was a fox", anchor=True)]
OF_PARENT = [
    Example(id="anchor 2", prompt="1 2 3", response=" 4 5 6", anchor=True, teacher="parent"),
    question("Where is the lamp?", "in the hall").model_copy(update={"anchor": True, "teacher": "parent"}),
]
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
VARIANTS: dict[str, Sequence[Example]] = {
    "weighted": [*SIGNALS, *OF_PARENT],
    "repeated": [*REPEATED, *OF_PARENT],
    "beside": [*SIGNALS, *OF_PARENT, *OF_BASE],
}
"""Each goes on from the same parent; the last has an adapter of another domain beside it."""
Runs = Callable[[str, str], Outcome]


@pytest.fixture(scope="module")
def parent(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What serves: an adapter of the attention alone."""
    return adapter(tmp_path_factory.mktemp("parent"), base_path, ATTENTION, rank=4)


@pytest.fixture(scope="module")
def other(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    """Another domain's, where the parent's is and where nothing learns."""
    path = adapter(tmp_path_factory.mktemp("other"), base_path, ("self_attn.q_proj", "mlp.up_proj"), rank=3)
    return Beside(adapter="helper/other-v1.0", path=str(path), scale=2.0)


def adapter(directory: Path, base: Path, places: Sequence[str], rank: int) -> Path:
    """One that changes what the base says."""
    generator, modules = np.random.default_rng(rank), {}

    def matrix(*shape: int) -> tensors.Tensor:
        return tensors.Tensor("F32", shape, generator.normal(0, 0.05, shape).astype(np.float32).tobytes())

    for file in bases.weight_files(base):
        with safe_open(file, framework="numpy") as found:
            for name in sorted(found.keys()):
                module = name.removesuffix(".weight")
                if module.endswith(tuple(places)):
                    outputs, inputs = found.get_slice(name).get_shape()
                    modules[module] = lora.Factors(matrix(rank, inputs), matrix(outputs, rank), 2.0)
    lora.write_peft(directory, lora.Lora(modules, ""), str(base))
    return directory


@pytest.fixture(scope="module")
def runs(base_path: Path, parent: Path, other: Beside, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A trainer's run of a variant; made once."""
    directory, made = tmp_path_factory.mktemp("runs"), dict[tuple[str, str], Outcome]()

    def run(trainer: str, variant: str) -> Outcome:
        if (trainer, variant) not in made:
            there = directory / trainer / variant
            job = write_job(there / "job", base_path, VARIANTS[variant], SETTINGS, parent)
            if variant == "beside":
                beside = Job.read(job / "job.json").model_copy(update={"beside": (other,)})
                (job / "job.json").write_bytes(beside.to_bytes())
            made[trainer, variant] = run_trainer(trainer, job, there / "checkpoints")
        outcome = made[trainer, variant]
        assert outcome.status == 0, outcome.log
        return outcome

    return run


def terms(outcome: Outcome) -> list[dict[str, float]]:
    """Cross-entropy, preference and divergence, of the first step and the last, which alone are told always."""
    first, *_, last = (event.model_dump() for event in outcome.events if event.loss is not None)
    return [{name: each[name] for name in ("loss", "preference_loss", "anchor_loss")} for each in (first, last)]


def test_as_it_begins_nothing_is_preferred_and_then_the_right_answer_is(trainer: str, runs: Runs) -> None:
    """DPO's loss against the model itself is log 2."""
    first, last = terms(runs(trainer, "weighted"))
    assert first["preference_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert last["preference_loss"] < 0.9 * np.log(2)


def test_as_it_begins_it_is_where_a_teacher_that_is_the_parent_holds_it(trainer: str, runs: Runs) -> None:
    first, last = terms(runs(trainer, "weighted"))
    assert first["anchor_loss"] == pytest.approx(0, abs=1e-5)
    assert last["anchor_loss"] > 1e-4


def test_the_same_job_learns_the_same_in_every_library(trainer: str, runs: Runs, parent: Path) -> None:
    """All begin with the same weights, so that their losses agree, and what is learned by them."""
    mine, torchs = (runs(name, "weighted") for name in (trainer, "torch"))
    assert terms(mine)[0] == pytest.approx(terms(torchs)[0], rel=1e-4, abs=1e-5)
    assert terms(mine)[1] == pytest.approx(terms(torchs)[1], rel=1e-3)
    same(mine.adapter, torchs.adapter, parent)


def test_what_lies_beside_counts_the_same_in_every_library(trainer: str, runs: Runs) -> None:
    """Towards all losses, and the teacher that is the parent has it too, the bare base not; but Unsloth's layers have
    no place for it, which its log says."""
    found, alone = (terms(runs(trainer, variant))[0] for variant in ("beside", "weighted"))
    if trainer == "unsloth":
        assert "helper/other-v1.0 is not applied beside" in runs(trainer, "beside").log
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        return
    assert abs(found["loss"] - alone["loss"]) > 0.1
    assert found["anchor_loss"] > 0.01
    assert found == pytest.approx(terms(runs("torch", "beside"))[0], rel=1e-4)


def test_a_weight_of_two_is_the_same_gradient_as_the_example_twice(trainer: str, runs: Runs, parent: Path) -> None:
    """Of a pair too: after some steps on either, the adapter is the same but for rounding."""
    weighted, repeated = runs(trainer, "weighted"), runs(trainer, "repeated")
    assert [*terms(weighted)[1].values()] == pytest.approx([*terms(repeated)[1].values()], rel=1e-3)
    same(weighted.adapter, repeated.adapter, parent)


def same(one: Path, other: Path, parent: Path) -> None:
    """But for rounding: of how far the weights moved, a thousandth."""
    before, there, here = (weights(each) for each in (parent, one, other))
    assert there.keys() == here.keys()
    for name in before:
        moved = np.abs(there[name] - before[name]).mean()
        assert np.abs(there[name] - here[name]).mean() < 1e-3 * moved, name

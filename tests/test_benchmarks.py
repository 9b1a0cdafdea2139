"""The benchmarks run and say what they promise to say. What they measure decides no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed import ROOT, slow

from benchmarks.intervals import Figure, interval
from benchmarks.scoring import Score
from daemon.demo import material


def keys(*command: str) -> dict[str, Any]:
    """The object on the last line of what a benchmark prints."""
    run = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


@slow
def test_the_intake_benchmark_prints_its_keys() -> None:
    """Real daemons, few lines; the one that grows old is left out."""
    few = ("--rounds", "1", "--drops", "5", "--signals", "0", "--grpc-signals", "400")
    found = keys("benchmarks.ingest", "--json", *few)
    assert found.keys() == {
        "lines_per_s",
        "over_floor",
        "over_fsync_per_line",
        "drop_to_ack_p50_over_floor",
        "stream_p99_over_watchfiles_default",
        "grpc_signals_per_s",
    }
    assert all(value > 0 for value in found.values())


def test_the_judgement_benchmark_prints_its_keys() -> None:
    """Few deployments, judged by the code that judges in earnest; a rate stands beside what is promised."""
    found = keys("benchmarks.judgement", "--json", "--deployments", "5")
    assert found.keys() == {
        "false_promotions",
        "false_refusals",
        "kept_of_the_best_after_ten",
        "false_rollbacks",
        "missed_regressions",
        "samples_to_detect",
    }
    assert found["false_rollbacks"]["promised"] == 0.01 and found["samples_to_detect"]["20_points"] < 500


@slow
def test_the_decoding_benchmark_prints_its_keys() -> None:
    """One object on the last line, with a ratio for every key that the small model has."""
    found = keys("benchmarks.serve", "--json", "--models", "S", "--rounds", "1")
    assert found.keys() == {
        "one_adapter_over_base_b1",
        "base_over_hf_generate_b1",
        "base_over_hf_generate_b8",
        "base_over_hf_generate_b8_ctx512",
    }
    assert all(
        value > 0 for value in (found["base_over_hf_generate_b8_ctx512"], *found["base_over_hf_generate_b1"].values())
    )


@slow
def test_the_training_benchmark_prints_its_keys() -> None:
    """Few corrections of the shipped ones; both sides begin with one loss, and steps take less than the whole job."""
    few = ("--models", "S", "--rounds", "1", "--examples", "16", "--epochs", "1")
    wanted = ("tokens_per_s_over_peft_padded", "tokens_per_s_over_trl_sft", "job_wall_over_step_time")
    found = keys("benchmarks.train", "--json", *few, *(word for key in wanted for word in ("--only", key)))
    assert found.keys() == {*wanted, "padding_ratio", "first_loss_difference"}
    assert found["tokens_per_s_over_peft_padded"]["S"] > 0 and found["tokens_per_s_over_trl_sft"] > 0
    assert found["first_loss_difference"]["S"] <= 1e-3 and found["padding_ratio"]["S"] >= 1
    assert found["job_wall_over_step_time"] > 1


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "key", ["mlx_over_mlx_lm_cli", "unsloth_over_unsloth_script", "serving_p99_over_idle", "provider_gap"]
)
def test_the_training_benchmark_compares_every_trainer(key: str) -> None:
    """With mlx-lm's command, Unsloth's script, one another, and what serving feels of one: a whole batch, once."""
    few = ("--models", "S", "--rounds", "1", "--examples", "16", "--epochs", "1")
    found = keys("benchmarks.train", "--json", *few, "--only", key)
    assert found.keys() == {key} and found[key] >= 0
    assert key == "provider_gap" or found[key] > 0


def little(place: Path) -> tuple[str, ...]:
    """Options of the retention benchmark: the shipped base, and few of the shipped corrections as its real text."""
    shipped = material.shipped()
    for name, signals in (("git", shipped.lines[:24]), ("gh", shipped.held_out[:12]), ("base-heldout", shipped.skills)):
        (place / f"{name}.jsonl").write_bytes(material.to_jsonl(signals))
    few = ("--seeds", "1", "--git", "16", "--gh", "8", "--questions", "8", "--epochs", "0.5", "--anchors", "4")
    return ("--base", str(material.SHIPPED_BASE), "--data", str(place), *few)


@slow
def test_the_retention_benchmark_prints_its_keys_and_goes_on_from_what_it_kept(tmp_path: Path) -> None:
    """Real batches and jobs on the shipped base; a second run trains nothing again and gives the same figures."""
    wanted = ("--only", "retention", "--only", "retention_first_batch", "--keep", str(tmp_path / "kept"))
    given = little(tmp_path)
    first = keys("benchmarks.retention", "--json", *wanted, *given)
    assert first.keys() == {"retention", "retention_first_batch", "intervals"}
    low, high = first["intervals"]["retention"]
    assert low <= first["retention"] <= high
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("adapter_model.safetensors")}
    assert len(made) == 3  # git's, and git's and gh's where gh came second
    assert keys("benchmarks.retention", "--json", *wanted, *given) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("adapter_model.safetensors")} == made


@slow
@pytest.mark.timeout(900)
def test_the_retention_benchmark_trains_every_arm(tmp_path: Path) -> None:
    """Plain PEFT, one domain, two domains, shuffled answers: every key has its figure, and every arm its adapter."""
    from benchmarks.retention import ARMS, FIGURES

    found = keys("benchmarks.retention", "--json", "--keep", str(tmp_path / "kept"), *little(tmp_path))
    assert found.keys() == {*FIGURES, "intervals"} and found["intervals"].keys() == FIGURES.keys()
    for key in ("retention", "retention_stacked", "plain_retention", "gain_over_shuffled"):
        low, high = found["intervals"][key]
        assert low <= found[key] <= high
    made = {path.relative_to(tmp_path / "kept" / "seed-0").parts[0].replace("-", "_")
            for path in (tmp_path / "kept").rglob("adapter_model.safetensors")}  # fmt: skip
    assert made == {*ARMS, "plain_git"} - {"base", "plain"}


def test_the_retention_benchmark_says_what_it_lacks() -> None:
    """Without real text nothing is measured, and that is said instead of figures."""
    assert "--data" in keys("benchmarks.retention", "--json")["skipped"]


def test_an_interval_is_over_seeds_and_over_questions() -> None:
    """Runs that differ widen it where questions do not, and questions that differ where runs do not."""
    figure = Figure(("after",), ("old",), lambda of: of("after", "old"))
    tokens, loss = np.full(50, 10), np.zeros(50)

    def width(*seeds: np.ndarray) -> float:
        value, low, high = interval(figure, {("after", "old"): [Score(tokens, right, loss) for right in seeds]})
        assert low <= value <= high
        return high - low

    even, uneven = np.full(50, 5), np.arange(50) % 2 * 10
    assert width(even, even, even) == 0
    assert width(even - 1, even, even + 1) > 0.05
    assert width(uneven, uneven, uneven) > 0.1

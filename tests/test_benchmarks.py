"""The benchmarks run and say what they promise to say. What they measure decides no test."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from fixed import ROOT


def keys(*command: str) -> dict[str, Any]:
    """The object on the last line of what a benchmark prints."""
    run = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


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

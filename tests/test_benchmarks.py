"""The benchmarks run and say what they promise to say. What they measure decides no test."""

from __future__ import annotations

import json
import subprocess
import sys

from fixed import ROOT


def test_the_decoding_benchmark_prints_its_keys() -> None:
    """One object on the last line, with a ratio for every key that the small model has."""
    command = [sys.executable, "-m", "benchmarks.serve", "--json", "--models", "S", "--rounds", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.keys() == {
        "one_adapter_over_base_b1",
        "base_over_hf_generate_b1",
        "base_over_hf_generate_b8",
        "base_over_hf_generate_b8_ctx512",
    }
    assert all(
        value > 0 for value in (found["base_over_hf_generate_b8_ctx512"], *found["base_over_hf_generate_b1"].values())
    )

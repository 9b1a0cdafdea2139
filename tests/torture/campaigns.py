"""Starts a campaign as a process of its own, from a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fixed import ROOT

HERE = Path(__file__).parent
SHARE = float(os.environ.get("GENOME_TORTURE", "0"))
"""1: every point. Between 0 and 1: that part of them. Else a test's own sample."""


def campaign(directory: Path, program: str, *arguments: str, share: float = 1.0, sabotage: str = "") -> str:
    """Runs it to its end; all it said, last its count of points and of violations. The status must agree with those."""
    chosen = share if SHARE <= 0 or sabotage else min(1.0, SHARE)
    command = [sys.executable, str(HERE / f"{program}.py"), str(directory / "campaign"), "--share", str(chosen)]
    if sabotage:
        command += ["--sabotage", sabotage]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert ended.returncode in (0, 1) and "violations" in ended.stdout, ended.stdout + ended.stderr
    assert (ended.returncode == 0) == (", 0 violations" in ended.stdout), ended.stdout
    print(ended.stdout.strip().splitlines()[-1])
    return ended.stdout

"""A trainer that honours the contract without learning anything: for tests of what happens around one.

python fake_trainer.py MODE JOB_DIRECTORY CHECKPOINT_DIRECTORY
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

# Waited for below, not reacted to; blocked before numpy starts threads of its own, which inherit it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})

import numpy as np  # noqa: E402

from genome import lora  # noqa: E402
from genome.lora import Factors, Lora  # noqa: E402
from genome.tensors import Tensor  # noqa: E402
from genome.training import EXIT_STOPPED  # noqa: E402


def say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def write_adapter(directory: Path) -> None:
    """A tiny adapter of zeros in PEFT's format."""
    factors = Factors(
        Tensor("F32", (2, 4), np.zeros((2, 4), np.float32).tobytes()),
        Tensor("F32", (6, 2), np.zeros((6, 2), np.float32).tobytes()),
        1.0,
    )
    directory.mkdir(parents=True)
    lora.write_peft(directory, Lora({"model.layers.0.self_attn.q_proj": factors}, ""), "base")


def main() -> int:
    mode, job, checkpoints = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    (checkpoints / "pid").write_text(str(os.getpid()))
    (checkpoints / "environment").write_text(json.dumps(dict(os.environ)))
    say("progress", step=1, steps=2, loss=1.5, tokens_per_second=100.0, memory_mb=64.0)
    if mode == "waits":
        say("checkpoint", step=1, steps=2)
        signal.sigwait({signal.SIGTERM})
        say("stopped", step=1, steps=2)
        return EXIT_STOPPED
    if mode == "fails":
        say("failed", reason="there is no memory left")
        return 1
    if mode == "runs out of memory":
        say("failed", reason="the GPU has too little memory: lower the rank", out_of_memory=True)
        return 1
    if mode == "stops by itself":
        say("stopped", step=1, steps=2)
        return EXIT_STOPPED
    if mode == "crashes":
        print("Traceback: it went wrong here", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "exits 137":
        return 137
    hang(mode)
    if mode == "garbage":
        torn = b'{"event": "finished"'
        for line in (b"\x00 this is no event", b"\xff\xfe\x80", torn, b"7" * 10_000_000, *[b"no"] * 1000):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.flush()
        say("progress", step=2, steps=2)
    if mode == "no numbers":
        for fact in ("losses", "loss", "time", "memory_mb", "learning_rate", "eta_seconds"):
            for value in (float("nan"), float("inf")):
                say("progress", step=1, **{fact: [value] if fact == "losses" else value})
        say("progress", step=2, steps=2)
    if mode == "any name":
        for fact in ("self", "name", "job", "level"):
            say("progress", step=2, steps=2, **{fact: "theirs"})
    if mode == "nothing":
        return 0
    assert json.loads((job / "job.json").read_text())["id"] == job.name
    write_adapter(checkpoints / "adapter")
    weights = checkpoints / "adapter" / lora.PEFT_WEIGHTS
    if mode == "half":
        weights.unlink()
    if mode == "no config":
        (checkpoints / "adapter" / lora.CONFIG).unlink()
    if mode == "torn":
        weights.write_bytes(weights.read_bytes()[:-8])
    say("finished", step=2, steps=2)
    return 0


def hang(mode: str) -> None:
    """Says no more, in one of several ways, and hears TERM (which is blocked) only in one."""
    if mode == "closes its output":
        os.close(1)
    if mode == "babbles":
        while True:
            os.write(1, b"still here\n" * 100)
    if mode == "hangs and leaves a checkpoint":
        signal.sigwait({signal.SIGTERM})
        say("stopped", step=1, steps=2)
        sys.exit(EXIT_STOPPED)
    if mode in ("hangs", "closes its output"):
        signal.sigwait({signal.SIGUSR1})


if __name__ == "__main__":
    sys.exit(main())

"""A trainer that lives for some tenths of a second: `daemon.trainers.contract` in the standard library alone.

What it makes follows from the job: one pair of factors [1, 1], where A is how much the adapter knows (one more than
its parent, or one less where the job's name says so, which the gate has to refuse) and B names the job.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULE = "model.layers.0.self_attn.q_proj"
STEPS, STEP_SECONDS = 4, 0.03
ONE_IN = 6
"""So manieth job gets worse than its parent."""
EXIT_STOPPED = 75

LINGERING_SECONDS = 10.0
"""For one that nobody listens to any more, unless it is ended: longer than the next supervisor needs to find it."""

stopping = alone = False


def say(event: str, **facts: Any) -> None:
    """One event. With nobody left to read it, the daemon is gone, and whoever comes next starts another trainer."""
    global alone
    try:
        os.write(1, json.dumps({"event": event, **facts}).encode() + b"\n")
    except BrokenPipeError:
        alone = True


def stop(_number: int, _frame: object) -> None:
    global stopping
    stopping = True


def linger(aside: Path) -> None:
    """A large model's checkpoint takes a while: the next supervisor starts beside it, and may remove it."""
    until = time.monotonic() + LINGERING_SECONDS
    while time.monotonic() < until and not stopping:
        with suppress(OSError):
            aside.mkdir(exist_ok=True)
            (aside / "weights").write_bytes(b"some")
        time.sleep(0.002)
        shutil.rmtree(aside, ignore_errors=True)


def whole(final: Path, content: dict[str, bytes]) -> None:
    """A directory that is there with all of ``content`` or not at all."""
    aside = final.with_name(f".unfinished-{final.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name, data in content.items():
        (aside / name).write_bytes(data)
    aside.rename(final)


def known_by(adapter: str | None) -> float:
    """Factor A of an adapter; 0 for the base."""
    if adapter is None:
        return 0.0
    data = (Path(adapter) / "adapter_model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    start = header[f"base_model.model.{MODULE}.lora_A.weight"]["data_offsets"][0]
    return float(struct.unpack("<f", data[8 + length + start :][:4])[0])


def factors(job: dict[str, Any]) -> tuple[float, float]:
    """(A, B) of a job's adapter, however often it was stopped and started."""
    hashed = zlib.crc32(job["id"].encode())
    return known_by(job["parent_path"]) + (-1.0 if hashed % ONE_IN == 0 else 1.0), float(hashed % (1 << 20))


def adapter(job: dict[str, Any]) -> dict[str, bytes]:
    names = [f"base_model.model.{MODULE}.lora_{factor}.weight" for factor in "AB"]
    header = {
        name: {"dtype": "F32", "shape": [1, 1], "data_offsets": [4 * index, 4 * index + 4]}
        for index, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = struct.pack("<Q", len(text)) + text + struct.pack("<2f", *factors(job))
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    return {"adapter_model.safetensors": weights, "adapter_config.json": json.dumps(config).encode()}


def main() -> int:
    directory, checkpoints = Path(sys.argv[1]), Path(sys.argv[2])
    signal.signal(signal.SIGTERM, stop)
    done = max((int(path.name[5:]) for path in checkpoints.glob("step-*")), default=0)
    job = json.loads((directory / "job.json").read_bytes())
    for step in range(done, STEPS):
        time.sleep(STEP_SECONDS)  # what a step takes: nobody waits for it
        say("progress", step=step + 1, steps=STEPS, loss=float(STEPS - step))
        if not (checkpoints / f"step-{step + 1}").exists():
            whole(checkpoints / f"step-{step + 1}", {})
        if alone:
            linger(checkpoints / ".unfinished-last-words")
        if stopping or alone:
            say("stopped", step=step + 1, steps=STEPS)
            return EXIT_STOPPED
        say("checkpoint", step=step + 1, steps=STEPS)
    if not (checkpoints / "adapter").is_dir():
        whole(checkpoints / "adapter", adapter(job))
    say("finished", step=STEPS, steps=STEPS)
    return 0


if __name__ == "__main__":
    sys.exit(main())

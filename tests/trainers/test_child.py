"""A trainer's process: what reaches stdout, and what SIGTERM does before there is anything to save."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trainer_runs import question, write_job

from daemon.trainers import catalog, child
from genome.training import EXIT_STOPPED, Event

NOISY = """
import os, sys
from daemon.trainers import child
channel = child.Channel.open()
print("printed by Python")
os.write(1, b"written by C\\n")
os.system("echo printed by a child")
channel.say("progress", step=1, steps=2, extra="kept")
"""
WAITING = """
import signal
from daemon.trainers import child
channel = child.Channel.open()
child.Stop(channel)
channel.say("progress", step=0)
signal.pause()
"""
LENGTHS = 400
EVERY_LENGTH = f"""
from daemon.trainers import child
child.before_importing()
import torch
weight = torch.zeros(448, 160, dtype=torch.bfloat16)
for tokens in range(1, {LENGTHS} + 1):
    torch.zeros(tokens, 160, dtype=torch.bfloat16) @ weight.t()
    if tokens == 10:
        early = child.memory_mb()
print(child.memory_mb() - early)
"""


def test_only_events_reach_stdout_whoever_prints() -> None:
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    event = Event.model_validate_json(line)
    assert (event.event, event.step, event.model_extra) == ("progress", 1, {"extra": "kept"})
    for noise in ("printed by Python", "written by C", "printed by a child"):
        assert noise in done.stderr


def test_asked_to_stop_before_the_first_step_it_stops_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert Event.model_validate_json(process.stdout.readline()).step == 0
    process.terminate()
    assert Event.model_validate_json(process.stdout.readline()).event == "stopped"
    assert process.wait() == EXIT_STOPPED


def too_much() -> RuntimeError:
    """What PyTorch raises on a CPU."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 46)
    return raised.value


@pytest.mark.parametrize(
    ("raised", "out_of_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee more"), True),
        (torch.OutOfMemoryError("Allocation on device 0"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (too_much(), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: invalid device ordinal"), None),
        (ValueError("the lesson is out of memory"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_too_little_memory_is_told_as_that(raised: Exception, out_of_memory: bool | None) -> None:
    """The host's or a GPU's: with what to try, and so that the daemon does not start it again as it was."""

    def work() -> int:
        raise raised

    reader, writer = os.pipe()
    assert child.to_its_end(child.Channel(writer), work) == 1
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        event = Event.model_validate_json(said.read())
    assert event.event == "failed" and event.reason is not None
    assert event.reason.startswith(f"{type(raised).__name__}: {str(raised).partition(chr(10))[0] or 'no message'}")
    assert (event.model_extra or {}).get("out_of_memory") is out_of_memory
    assert ("Lower training.max_tokens or training.rank" in event.reason) is bool(out_of_memory)


def test_a_channel_nobody_reads_is_noticed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    channel = child.Channel(writer)
    channel.say("stopped")
    assert channel.closed
    os.close(writer)


def test_a_finished_job_started_again_says_so_and_loads_nothing(base_path: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", base_path, [question("Hi", "well")])
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "adapter").mkdir(parents=True)
    command = [sys.executable, "-X", "importtime", *catalog.command("torch", job, checkpoints)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Event.model_validate_json(done.stdout).event == "finished"
    assert "torch.nn" not in done.stderr


def test_passes_of_many_lengths_take_no_more_than_one() -> None:
    """What is compiled for a number of tokens is not kept for ever, or the largest part of a small training were that.
    Only a processor that computes in bfloat16 shows it."""
    done = subprocess.run([sys.executable, "-c", EVERY_LENGTH], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 80

"""What a run is compared with can take long to measure: it says how far it is, and can be stopped meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trainer_runs import question, write_job

from daemon.trainers import child, comparisons
from daemon.trainers.batches import Batch
from daemon.trainers.child import Channel
from daemon.trainers.examples import Distributions, Examples, Tokens, Wrong
from genome.training import EXIT_STOPPED, Event, Example

MEASURING = """
import signal, sys
from types import SimpleNamespace
import numpy as np
from daemon.trainers import child, contract
from daemon.trainers.examples import Distributions

class Slow:
    padded, pass_tokens, passes = False, 1, 0

    def distributions(self, batch, of_base):
        self.passes += 1
        if self.passes == 3:
            signal.pause()
        count = len(batch.places)
        return Distributions(np.zeros((count, 1), np.int64), np.zeros((count, 2), np.float32))

signal.alarm(120)  # who waits for a word of it that never comes hears its end
child.SECONDS_BETWEEN_COMPARISONS = 0.0
sys.modules["slow"] = SimpleNamespace(load=lambda job: Slow())
raise SystemExit(contract.run("slow", sys.argv[1:]))
"""


class Model:
    """Stands for a model: it knows nothing, and takes one text a pass."""

    padded = False
    pass_tokens = 1

    def log_probabilities(self, batch: Batch) -> np.ndarray:
        return np.zeros(len(batch.examples))

    def distributions(self, batch: Batch, of_base: bool) -> Distributions:
        return Distributions(np.zeros((len(batch.places), 1)), np.zeros((len(batch.places), 2)))


def test_every_text_that_is_measured_is_told() -> None:
    """Each anchor once, whichever teacher it has, both answers of each pair, and each example of a validation."""
    told: list[tuple[int, int]] = []
    anchors = [Tokens([1], [2, 3], 1.0, of_parent=number % 2 == 0) for number in range(3)]
    pairs = [Tokens([1], [2], 1.0, wrong=Wrong([3])) for _ in range(2)]
    examples = Examples([*pairs, Tokens([1], [4], 1.0)], anchors, 0, 0)
    comparisons.prepared(examples, Model(), lambda *so_far: told.append(so_far))
    assert told == [(done, 7) for done in range(1, 8)]
    told.clear()
    comparisons.loss(pairs, Model(), lambda *so_far: told.append(so_far))
    assert told == [(1, 2), (2, 2)]


def test_it_is_said_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at all where measuring takes no longer."""
    now = [0.0]
    said: list[int] = []
    monkeypatch.setattr(child.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Channel, "say", lambda _self, _event, **facts: said.append(facts["compared"]))
    comparing = child.Comparing(Channel(-1))
    for done, now[0] in ((1, 1.0), (2, 5.0), (3, 9.0), (4, 10.5)):
        comparing.told(done, 9)
    assert said == [2, 4]


def test_a_run_that_is_still_measuring_says_so_and_stops_at_once(base_path: Path, tmp_path: Path) -> None:
    """Though its first step is far away: the daemon takes a silent trainer for one that hangs."""
    anchors = [Example(id=f"a {i}", prompt=f"{i} and", response=" so on", anchor=True) for i in range(4)]
    job = write_job(tmp_path / "job", base_path, [question("Hi", "well"), *anchors])
    command = [sys.executable, "-c", MEASURING, str(job), str(tmp_path / "checkpoints")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    heard = [Event.model_validate_json(process.stdout.readline()) for _ in range(2)]
    process.terminate()
    last = Event.model_validate_json(process.stdout.readline())
    assert [(event.event, event.step, event.model_extra) for event in heard] == [
        ("progress", None, {"compared": done, "to_compare": 4}) for done in (1, 2)
    ]
    assert last.event == "stopped" and process.wait() == EXIT_STOPPED

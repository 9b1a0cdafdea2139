"""A trainer that another package brings, as docs/trainers.md says to: installed, found by its name, and run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixed import NOW

from daemon import orders, supervisor
from daemon.trainers import catalog
from genome import adapters, bases, batches
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.errors import InvalidConfig
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.lines import from_signal

PACKAGE = {
    "my_trainer/__main__.py": """
from daemon.trainers.contract import run
raise SystemExit(run("my_trainer"))
""",
    "my_trainer/__init__.py": '''
"""Its steps learn nothing; all around them is the shared run's."""
import json
from pathlib import Path
import numpy as np
from daemon.trainers.contract import Losses
from genome import lora
from genome.lora import Factors, Lora
from genome.tensors import Tensor

def load(job):
    return MyTrainer(job)

class MyTrainer:
    padded = True
    pass_tokens = 4096

    def __init__(self, job):
        rank, width = job.settings.rank, json.loads(Path(job.base, "config.json").read_bytes())["hidden_size"]
        a, b = np.ones((rank, width), np.float32), np.zeros((width, rank), np.float32)
        factors = Factors(Tensor("F32", a.shape, a.tobytes()), Tensor("F32", b.shape, b.tobytes()), 1.0)
        self.base, self.lora = job.base, Lora({"model.layers.0.self_attn.o_proj": factors}, "")

    def train(self, course):
        for lesson in course.remaining():
            assert lesson.signals and not lesson.anchors
            if not course.made(Losses(2.5)):
                break

    def log_probabilities(self, batch):
        raise NotImplementedError

    def distributions(self, batch, of_base):
        raise NotImplementedError

    def save(self, directory):
        pass

    def restore(self, directory):
        pass

    def export(self, directory):
        lora.write_peft(directory, self.lora, self.base)
''',
    "my_trainer-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: my-trainer\nVersion: 1.0\n",
    "my_trainer-1.0.dist-info/entry_points.txt": "[genome.trainers]\nmine = my_trainer\n",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package lies, on this process's path and its children's."""
    made = tmp_path / "site-packages"
    for name, text in PACKAGE.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(made), os.environ.get("PYTHONPATH")))))
    monkeypatch.syspath_prepend(made)
    return made


async def test_an_installed_package_adds_a_trainer(
    place: Path, home: Home, signal: Callable[..., Any], base_path: Path
) -> None:
    """Its entry point's name is what genome.toml says; the daemon runs its module, and installs what that trained."""
    training = {"trainer": "mine", "anchor_weight": 0, "rank": 4, "epochs": 2, "batch_size": 4}
    config = Config.model_validate({"base": str(base_path), "training": training})
    assert "mine" in catalog.names()
    Buffer(home, Intake()).accept([from_signal(signal(number)) for number in range(10)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    job = JobDirectory(home.active_jobs / orders.order(home, config, batch, base_path, bases.fingerprint(base_path)).id)
    made = await supervisor.compose(home, config, None, home.root, "f" * 64)  # type: ignore[arg-type]
    await made.runners[0].step()
    assert job.state() == "judging", job.log.read_text()
    manifest = adapters.manifest(home, "helper/git-v1.0")
    assert (manifest.trainer, manifest.job, manifest.settings["rank"]) == ("mine", job.id, 4)
    assert (manifest.metrics["steps"], manifest.metrics["last_loss"]) == (4, 2.5)
    assert "my_trainer" not in sys.modules


def test_a_package_that_is_gone_takes_its_trainer_along(place: Path) -> None:
    """What names it then is told which trainers there are."""
    assert catalog.resolve("mine") == "mine"
    (place / "my_trainer-1.0.dist-info" / "entry_points.txt").unlink()
    with pytest.raises(InvalidConfig, match="no trainer 'mine'"):
        catalog.resolve("mine")

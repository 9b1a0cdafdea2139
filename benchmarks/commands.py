"""Whole training runs as processes: our jobs, mlx-lm's own command, and Unsloth's documented script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import corrections, training_jobs
from daemon.process import NICENESS
from daemon.trainers import catalog
from genome.signals import Signal
from genome.training import TrainingSettings

MLX_COMMAND = """
import runpy, sys
from genome import blas
blas.prefer_fast()
sys.argv = ["mlx_lm", *sys.argv[1:]]
runpy.run_module("mlx_lm", run_name="__main__", alter_sys=True)
"""
"""``python -m mlx_lm``, on the BLAS our trainer takes."""


@dataclass
class Shop:
    """A base, corrections, and one place where both sides of a comparison run."""

    directory: Path
    base: Path
    signals: Sequence[Signal]
    settings: TrainingSettings

    @property
    def steps(self) -> int:
        """Of so many whole batches: neither command makes a smaller last one, or not by the same rule."""
        return max(1, round(self.settings.epochs * len(self.signals) / self.settings.batch_size))

    def job(self, trainer: str) -> Callable[[], float]:
        """Seconds from the start of our trainer's process to its exit, the adapter on disk."""

        def run() -> float:
            directory = self.directory / trainer
            shutil.rmtree(directory, ignore_errors=True)
            job = training_jobs.order(self.base, trainer, self.settings)
            done = training_jobs.run(trainer, training_jobs.write(directory, job, corrections.examples(self.signals)))
            if done.events[-1].steps != self.steps:
                raise RuntimeError(f"{trainer} made {done.events[-1].steps} steps, not {self.steps}")
            return done.seconds

        return run

    def mlx_lm(self) -> float:
        """Seconds of ``python -m mlx_lm lora --train``: the same steps, rank, scale and layers, prompts masked."""
        place = self._place("mlx-lm")
        settings = self.settings
        scale = settings.alpha / settings.rank
        given = {"lora_parameters": {"rank": settings.rank, "scale": scale, "dropout": 0.0}}
        (place / "lora.yaml").write_text(json.dumps(given))  # JSON is YAML
        options = {
            "model": self.base, "data": place, "adapter-path": place / "adapter", "config": place / "lora.yaml",
            "optimizer": "adamw", "num-layers": -1, "batch-size": settings.batch_size, "iters": self.steps,
            "learning-rate": settings.learning_rate, "max-seq-length": settings.max_tokens, "seed": settings.seed,
        }  # fmt: skip
        flags = [f"--{name}={value}" for name, value in options.items()]
        return self._run(place, ["-c", MLX_COMMAND, "lora", "--train", "--mask-prompt", *flags], "adapters.safetensors")

    def unsloth_script(self) -> float:
        """Seconds of `benchmarks.unsloth_script`. What Unsloth compiles is kept for its next run."""
        place = self._place("unsloth-script")
        given = json.dumps(self.settings.model_dump() | {"steps": self.steps})
        arguments = [str(self.base), str(place / "train.jsonl"), str(place / "adapter"), given]
        return self._run(place, ["-m", "benchmarks.unsloth_script", *arguments], "adapter_model.safetensors")

    def _place(self, name: str) -> Path:
        place = self.directory / name
        shutil.rmtree(place / "adapter", ignore_errors=True)
        place.mkdir(exist_ok=True)
        rows = [{"messages": corrections.messages(signal)} for signal in self.signals]
        (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return place

    def _run(self, place: Path, arguments: list[str], weights: str) -> float:
        """With the threads and the priority of a trainer of ours."""
        here = str(Path(__file__).resolve().parents[1])
        environment = os.environ | catalog.threads(self.settings.threads)
        environment |= {
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "UNSLOTH_DISABLE_STATISTICS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", "")))),
            "HF_DATASETS_CACHE": str(place / "datasets"),
        }  # fmt: skip
        command = ["nice", "-n", str(NICENESS), sys.executable, *arguments]
        with (place / "log.txt").open("wb") as log:
            started = time.perf_counter()
            done = subprocess.run(command, stdout=log, stderr=log, env=environment, cwd=place)
            took = time.perf_counter() - started
        if done.returncode or not (place / "adapter" / weights).exists():
            raise RuntimeError(f"{place.name} failed: {(place / 'log.txt').read_text()[-2000:]}")
        return took

"""A base, an engine over it, adapters for it, and a worker behind a real gRPC channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from worker_runs import Foundry, RunningWorker, Steps, close_all, running

from genome.config import Worker
from inference_worker import engine as engines
from inference_worker.engine import Engine


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads on a machine that does other things are slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def torch_engine(base_path: Path) -> Engine:
    return engines.load(base_path, Worker(engine="torch", device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def mlx_engine(base_path: Path) -> Engine:
    pytest.importorskip("mlx_lm", reason="mlx-lm is not installed: pip install 'genome[mlx]'")
    return engines.load(base_path, Worker(engine="mlx", device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def engine(torch_engine: Engine) -> Engine:
    """One engine for whatever is not the engine's own."""
    return torch_engine


@pytest.fixture(scope="session")
def library_model(base_path: Path) -> Callable[[], Any]:
    """A fresh copy of the base as the library loads it."""
    return lambda: AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def foundry(library_model: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Foundry:
    return Foundry(library_model, tmp_path_factory.mktemp("adapters").resolve())


@pytest.fixture
def steps(engine: Engine) -> Iterator[Steps]:
    scheduler = Steps(engine)
    yield scheduler
    close_all(scheduler)


@pytest.fixture
async def worker(engine: Engine, base_path: Path, foundry: Foundry, tmp_path: Path) -> AsyncIterator[RunningWorker]:
    async with running(engine, base_path, (foundry.directory, tmp_path), tmp_path / "w.sock") as started:
        yield started

"""The two processes of a demo: started, awaited, watched for an early death, and stopped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc

from daemon import worker_client
from genome import config
from genome.errors import Unavailable
from genome.layout import Home

T = TypeVar("T")
START_SECONDS, STOP_SECONDS = 120.0, 20.0


@asynccontextmanager
async def running(home: Home) -> AsyncIterator[Callable[[Awaitable[T]], Awaitable[T]]]:
    """Runs a worker and a supervisor on ``home``, logging into its logs/.

    Yields a function that awaits something, and raises Unavailable with the end of a log if a process dies meanwhile.
    """
    logs = home.root / "logs"
    logs.mkdir(exist_ok=True)
    commands = {
        "worker": [sys.executable, "-m", "inference_worker", str(home.root)],
        "daemon": [sys.executable, "-m", "daemon", "daemon", "--home", str(home.root)],
    }
    processes: dict[str, anyio.abc.Process] = {}
    try:
        for name, command in commands.items():
            with (logs / f"{name}.log").open("ab") as log:
                processes[name] = await anyio.open_process(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )

        async def alive(work: Awaitable[T]) -> T:
            return await _while_alive(work, processes, logs)

        await alive(ready(home))
        yield alive
    finally:
        with anyio.CancelScope(shield=True):
            for process in reversed(processes.values()):
                await _stop(process)


async def ready(home: Home) -> None:
    """Returns when the worker's health service says SERVING."""
    with anyio.fail_after(START_SECONDS):
        async with worker_client.connect(config.load(home), home) as worker:
            while True:
                try:
                    async for serving in worker.watch():
                        if serving:
                            return
                except Unavailable:
                    await anyio.sleep(0.1)


async def _while_alive(work: Awaitable[T], processes: dict[str, anyio.abc.Process], logs: Path) -> T:
    died: list[str] = []

    async def watch(name: str, scope: anyio.CancelScope) -> None:
        await processes[name].wait()
        died.append(name)
        scope.cancel()

    result: list[T] = []
    async with anyio.create_task_group() as group:
        for name in processes:
            group.start_soon(watch, name, group.cancel_scope)
        result.append(await work)
        group.cancel_scope.cancel()
    if not result:
        log = logs / f"{died[0]}.log"
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"the {died[0]} ended early: {last[0][:500]}", f"Its log is {log}")
    return result[0]


async def _stop(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(STOP_SECONDS):
            await process.wait()
            return
        process.kill()
        await process.wait()

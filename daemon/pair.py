"""`genome run`: the worker and the daemon in one terminal, each its own process, each started again if it dies."""

from __future__ import annotations

import subprocess
import sys

import anyio
import structlog

from daemon import host
from genome.config import Config
from genome.layout import Home

RESTART_SECONDS, MAX_RESTART_SECONDS = 0.5, 30.0
LIVED_WELL_SECONDS = 60.0
"""After so long a life the patience before a restart begins anew."""
STOP_MARGIN_SECONDS = 10.0
"""Beyond what both were told they may take."""


async def run(home: Home, config: Config) -> None:
    """Until SIGINT or SIGTERM; then both are asked to stop and waited for."""
    commands = {
        "worker": [sys.executable, "-m", "inference_worker", str(home.root)],
        "daemon": [sys.executable, "-m", "daemon", "daemon", "--home", str(home.root)],
    }
    patience = max(config.worker.shutdown_seconds, config.daemon.shutdown_seconds) + STOP_MARGIN_SECONDS
    async with host.stop_signal() as stop, anyio.create_task_group() as group:
        for name, command in commands.items():
            group.start_soon(_keep_running, name, command, stop, patience)


async def _keep_running(name: str, command: list[str], stop: anyio.Event, patience: float) -> None:
    log, pause = structlog.get_logger("run"), RESTART_SECONDS
    while not stop.is_set():
        began = anyio.current_time()
        # Its own session: Ctrl-C reaches this process alone, which then ends both in order.
        process = await anyio.open_process(
            command, stdout=None, stderr=None, stdin=subprocess.DEVNULL, start_new_session=True
        )
        async with anyio.create_task_group() as group:
            group.start_soon(_end_when_stopped, process, stop, patience)
            status = await process.wait()
            group.cancel_scope.cancel()
        if stop.is_set():
            return
        pause = (
            RESTART_SECONDS
            if anyio.current_time() - began > LIVED_WELL_SECONDS
            else min(pause * 2, MAX_RESTART_SECONDS)
        )
        log.error("died", process=name, status=status, restart_seconds=pause)
        with anyio.move_on_after(pause):
            await stop.wait()


async def _end_when_stopped(process: anyio.abc.Process, stop: anyio.Event, patience: float) -> None:
    await stop.wait()
    process.terminate()
    await anyio.sleep(patience)
    process.kill()

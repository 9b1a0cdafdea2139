"""One child process in its own session: its lines as they come, and an end that lets it finish first.

Cancelling an anyio process kills at once, and a trainer would lose its checkpoint; `stop` asks, waits, then kills.
The child holds a lock file for its life, so that one left over by a crashed supervisor is found and ended.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc

from genome import files

MAX_LINE_BYTES = 1 << 20
NICENESS = 10
"""What a child's is above the daemon's: learning yields to serving."""


@dataclass(frozen=True)
class Child:
    process: anyio.abc.Process

    async def lines(self) -> AsyncIterator[bytes]:
        """Its standard output, line by line, to the end. Of a line over 1 MiB that much is given, and the rest dropped
        as it comes. What follows the last newline is no line."""
        assert self.process.stdout is not None
        line, dropping = bytearray(), False
        async for data in self.process.stdout:
            *ended, rest = data.split(b"\n")
            for end in ended:
                if not dropping:
                    yield bytes(line + end)[:MAX_LINE_BYTES]
                line.clear()
                dropping = False
            line += rest
            if len(line) > MAX_LINE_BYTES:
                if not dropping:
                    yield bytes(line[:MAX_LINE_BYTES])
                line.clear()
                dropping = True

    async def wait(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        return await self.process.wait()

    async def stop(self, grace_seconds: float) -> int:
        """TERM to its whole session, a deadline, then KILL. Not interrupted by cancellation."""
        with anyio.CancelScope(shield=True):
            _signal_session(self.process.pid, signal.SIGTERM)
            with anyio.move_on_after(grace_seconds):
                return await self.process.wait()
            _signal_session(self.process.pid, signal.SIGKILL)
            return await self.process.wait()


@asynccontextmanager
async def spawn(command: list[str], lock: Path, log: Path, environment: dict[str, str]) -> AsyncIterator[Child]:
    """Starts ``command`` in its own session, niced, standard error into ``log``. Leaving the block ends what still
    runs."""
    await anyio.to_thread.run_sync(files.make_directory, lock.parent)
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(held, 0)  # who held it before is gone, and its number may be another process's by now
        with log.open("ab") as errors:
            process = await anyio.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                pass_fds=(held,),
                env={**os.environ, **environment},
            )
        yield_to_serving(process.pid)
        os.pwrite(held, f"{process.pid}\n".encode(), 0)
    finally:
        os.close(held)
    child = Child(process)
    try:
        yield child
    finally:
        if process.returncode is None:
            await child.stop(0.0)
        with anyio.CancelScope(shield=True):
            await process.aclose()


def yield_to_serving(pid: int) -> None:
    """Lowers the priority of a process that leads its own session, and of all it has started by now.

    Of the whole group, since Linux gives every thread a priority of its own.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
    with suppress(ProcessLookupError, PermissionError):  # it ended already, niced itself further, or is another user's
        os.setpriority(os.PRIO_PGRP, pid, niceness)


def end_leftover(lock: Path, grace_seconds: float) -> bool:
    """Ends the child a crashed supervisor left behind, if one still holds ``lock``. Blocks; True if there was one."""
    if not lock.exists():
        return False
    descriptor = os.open(lock, os.O_RDWR)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        pid = int(os.pread(descriptor, 20, 0) or b"0")
        _signal_session(pid, signal.SIGTERM)
        killer = threading.Timer(grace_seconds, _signal_session, (pid, signal.SIGKILL))
        killer.start()
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # returns when the holder is gone
        killer.cancel()
        return True
    finally:
        os.close(descriptor)


def _signal_session(pid: int, number: signal.Signals) -> None:
    if pid > 1:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)

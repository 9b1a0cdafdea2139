"""What the operating system wants of a service: logging, signals, readiness and the watchdog."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import structlog

from genome.service_manager import notify, watchdog_seconds

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Of glibc's malloc.h."""
LARGE_BYTES = 1 << 18


def configure_logging(verbose: bool = False) -> None:
    """Structured lines on standard error: for people at a terminal, JSON for the journal."""
    # Plain tracebacks: the default ones print local variables, and with them what people wrote.
    terminal = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    render = (
        [terminal]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def spare_memory() -> None:
    """Makes freed memory the system's again. glibc gives every thread a heap of its own, where what one freed is of no
    use to the others, and keeps large blocks for later once some were freed."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            allocator = ctypes.CDLL(None)
            allocator.mallopt(M_ARENA_MAX, 2)
            allocator.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


async def watchdog() -> None:
    """Answers the service manager's watchdog for as long as the event loop turns; returns at once without one."""
    interval = watchdog_seconds()
    while interval:
        notify("WATCHDOG=1")
        await anyio.sleep(interval)


@asynccontextmanager
async def stop_signal() -> AsyncIterator[anyio.Event]:
    """An event that SIGTERM or SIGINT sets; a second one ends the process at once."""
    stop = anyio.Event()

    async def listen() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                if stop.is_set():
                    os._exit(128 + number)
                stop.set()

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        yield stop
        group.cancel_scope.cancel()

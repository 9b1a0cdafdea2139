"""What the operating system wants of a service: logging, signals, readiness and the watchdog."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog

MICROSECONDS = 1_000_000


def configure_logging(verbose: bool = False) -> None:
    """Structured lines on standard error: for people at a terminal, JSON for the journal."""
    render = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def notify(state: str) -> None:
    """Tells systemd (sd_notify(3)), where it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        connection.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        connection.sendall(state.encode())


async def watchdog() -> None:
    """Answers systemd's watchdog (WatchdogSec=) for as long as the event loop turns; returns at once without one."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        notify("WATCHDOG=1")
        await anyio.sleep(microseconds / 2 / MICROSECONDS)


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

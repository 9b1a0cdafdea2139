"""Words to the service manager, where there is one that listens: systemd's sd_notify(3)."""

from __future__ import annotations

import os
import socket

PINGS_PER_WATCHDOG = 3
"""So that one late ping is not the end."""


def notify(state: str) -> None:
    """Sends READY=1, STOPPING=1 or WATCHDOG=1; nothing without $NOTIFY_SOCKET."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(state.encode())


def watchdog_seconds() -> float:
    """How often to send WATCHDOG=1; 0 if nobody waits for it (WatchdogSec=)."""
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / PINGS_PER_WATCHDOG

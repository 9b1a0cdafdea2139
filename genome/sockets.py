"""Where a service of ours may listen: a private unix socket, or the loopback."""

from __future__ import annotations

import os
from pathlib import Path

from genome import files
from genome.errors import InvalidConfig

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def prepare(listen: str) -> None:
    """Makes the directory of a unix socket (mode 0700) and removes one left by a crash; refuses an open TCP port."""
    if listen.startswith("unix:"):
        path = Path(listen.removeprefix("unix:"))
        files.make_directory(path.parent)
        if path.parent.stat().st_uid != os.getuid():
            raise InvalidConfig(
                f"{path.parent} belongs to someone else", "Set listen to a socket in a directory of yours"
            )
        path.unlink(missing_ok=True)
    elif listen.rpartition(":")[0] not in LOOPBACK:
        raise InvalidConfig(
            f"listen = {listen!r} would be open to the network without encryption",
            "Use unix:/path or 127.0.0.1:port; TCP to other machines needs TLS, which is not built yet",
        )


def restrict(listen: str) -> None:
    """Mode 0600 for a unix socket that was just bound."""
    if listen.startswith("unix:"):
        Path(listen.removeprefix("unix:")).chmod(0o600)

"""Where a process of ours may listen: a private unix socket, or the loopback. Anything wider is refused."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genome import files
from genome.errors import InvalidConfig


def address(listen: str, default: Path) -> str:
    """What a client dials and a server binds for a config's ``listen``; "" means the socket ``default``."""
    return listen or f"unix:{default.absolute()}"


@contextmanager
def reserved(listen: str, default: Path) -> Iterator[str]:
    """The address to bind, checked; a unix socket's is held against a second process for the length of the block."""
    target = address(listen, default)
    if not target.startswith("unix:"):
        yield _loopback(target)
        return
    path = Path(target.removeprefix("unix:"))
    _make_private(path.parent)
    with files.locked(path.with_name(f"{path.name}.lock"), f"process id {os.getpid()}", wait=False):
        yield target


@contextmanager
def private() -> Iterator[None]:
    """A unix socket bound in this block gets mode 0600."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _make_private(directory: Path) -> None:
    files.make_directory(directory)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InvalidConfig(f"{directory} is no directory of this user", "Remove it, or set listen in genome.toml")
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)


def _loopback(target: str) -> str:
    host, colon, port = target.rpartition(":")
    bare = host.strip("[]")
    try:
        local = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        local = False
    if not (colon and port.isdigit() and local):
        raise InvalidConfig(
            f"listen = {target!r} is no address of the loopback",
            "Use unix:/path or 127.0.0.1:port; other machines reach it through a tunnel",
        )
    return target

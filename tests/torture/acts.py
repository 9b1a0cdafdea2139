"""A stand-in for the module `os` that counts what is done to the disk, records it, and dies or fails at one act.

It takes the place of ``os`` in the modules that touch the disk (`MODULES`), in the process under test alone. Nothing
is really synced: a killed process loses nothing of the page cache, and what a power cut would lose is worked out from
the recorded trace (`lost_writes.py`).
"""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genome import files, intake

MODULES = (files, intake)
CHANGES = frozenset(
    {"write", "pwrite", "fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "ftruncate", "fchmod"}
)
"""Acts on the disk; also `open` where it may create."""
WRITES = frozenset({"write", "pwrite"})
CALLS = CHANGES | {"open", "pread", "scandir", "fstat"}
"""Whatever can fail."""
WANT_ROOM = frozenset({"write", "pwrite", "rename", "replace", "link", "mkdir", "fsync"})
"""What a full disk refuses, besides creating; fsync where room is only found when it is needed."""
CUTS_FAIL_TOO = True
"""Whether a medium that stays broken also refuses to cut off what an append that failed left behind."""
MOMENTS = ("before", "within", "after")
"""Of an act, for dying. ``within`` tears a write in half."""


class Acts:
    """Looks like `os`; what changes or reads the disk goes through ``plan``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real
        return lambda *arguments, **named: self._plan.call(name, real, arguments, named)


@dataclass
class Plan:
    """Lets every call through. ``trace``: a file each act is recorded in, as a line of JSON, before the next begins."""

    trace: Path | None = None
    calls: list[str] = field(default_factory=list)
    """Names of all calls so far; of an `open` that may create: "creat"."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    handles: dict[int, str] = field(default_factory=dict)
    opened: int = 0

    def install(self) -> None:
        """For the rest of this process's life."""
        for module in MODULES:
            module.os = Acts(self)  # type: ignore[attr-defined]

    def call(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with self.lock:
            if name == "open" and arguments[1] & os.O_CREAT:
                name = "creat"
            self.calls.append(name)
            if name == "fsync":
                real = os.fstat  # raises for a closed descriptor, as fsync would
            return self.act(name, lambda *replaced: self._recorded(name, real, replaced or arguments, named), arguments)

    def act(self, _name: str, go: Callable[..., Any], _arguments: tuple[Any, ...]) -> Any:
        """Does the call by ``go()``, or ``go(*other arguments)``; what dies or fails overrides this."""
        return go()

    def mark(self, what: str) -> None:
        """Records that something was acknowledged."""
        self._record(act="mark", what=what)

    def _recorded(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        result = real(*arguments, **named)
        if name in ("open", "creat"):
            self.opened += 1
            self.handles[result] = f"{os.getpid()}:{self.opened}"
            flags = arguments[1]
            self._record(act="open", handle=self.handles[result], path=str(arguments[0]),
                         creates=bool(flags & os.O_CREAT), truncates=bool(flags & os.O_TRUNC))  # fmt: skip
        elif name in WRITES:
            data = bytes(arguments[1][:result])
            offset = arguments[2] if name == "pwrite" else os.lseek(arguments[0], 0, os.SEEK_CUR) - result
            handle = self.handles[arguments[0]]
            self._record(act="write", handle=handle, offset=offset, data=base64.b64encode(data).decode())
        elif name in ("fsync", "ftruncate"):
            self._record(act=name, handle=self.handles[arguments[0]], length=arguments[-1])
        elif name in CHANGES - {"fchmod"}:
            paths = [str(path) for path in arguments if isinstance(path, str | os.PathLike)]
            self._record(act="rename" if name == "replace" else name, paths=paths)
        return result

    def _record(self, **facts: Any) -> None:
        if self.trace is not None:
            with self.trace.open("a") as stream:
                stream.write(json.dumps(facts) + "\n")


@dataclass
class Die(Plan):
    """Kills the process at one act: point 3n + m is moment m of the n-th act that changes something."""

    point: int = 0
    acts: int = 0

    def act(self, name: str, go: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if not changes(name):
            return go()
        here, moment = divmod(self.point, len(MOMENTS))
        due, self.acts = self.acts == here, self.acts + 1
        if not due:
            return go()
        if MOMENTS[moment] == "within" and name in WRITES:
            descriptor, data, *offset = arguments
            go(descriptor, data[: len(data) // 2], *offset)
        elif MOMENTS[moment] == "after":
            with suppress(OSError):  # what is not there cannot be unlinked: an act all the same
                go()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


@dataclass
class Fail(Plan):
    """Lets one call fail, from 0; ``how`` is an error's name or "short", a write of half the bytes.

    With ``lasting`` every later call of the kind fails too, until `mend`.
    """

    nth: int = -1
    how: str = "EIO"
    lasting: bool = False
    mended: bool = False

    def act(self, name: str, go: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        number = len(self.calls) - 1
        due = number == self.nth or (self.lasting and number > self.nth)
        if self.lasting and name == "ftruncate" and not CUTS_FAIL_TOO:
            return go()
        if self.mended or not due or not suits(name, self.how):
            return go()
        if self.how == "short":
            descriptor, data, *offset = arguments
            return go(descriptor, data[: len(data) // 2], *offset)
        number = getattr(errno, self.how)
        raise OSError(number, os.strerror(number))

    def mend(self) -> None:
        self.mended = True


def changes(name: str) -> bool:
    return name in CHANGES or name == "creat"


def suits(name: str, how: str) -> bool:
    """Whether that call can fail that way."""
    return {
        "short": name in WRITES,
        "EMFILE": name in ("open", "creat", "scandir"),
        "ENOSPC": name in WANT_ROOM or name == "creat",
        "EIO": True,
    }[how]

"""A process that is killed before its n-th act on disk."""

from __future__ import annotations

import os
from typing import Any

ACTS = frozenset(
    {"open", "write", "fsync", "fchmod", "ftruncate", "mkdir", "replace", "rename", "link", "unlink", "rmdir"}
)


class Killed(BaseException):
    """What is not an Exception: nothing handles it."""


class Stopping:
    """Stands for `os` in genome.files: raises Killed at the act ``at``, from 0, and at every one after it."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.reached = False

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ACTS:
            return real

        def act(*arguments: Any, **options: Any) -> Any:
            if self.left == 0:
                self.reached = True
                raise Killed(name)
            self.left -= 1
            return real(*arguments, **options)

        return act

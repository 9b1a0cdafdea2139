"""Stands in for the module ``os`` of genome.files: counts the calls that change the disk, and fails one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from genome import files

CALLS = frozenset({"open", "write", "fsync", "replace", "link", "unlink", "rename", "ftruncate", "mkdir", "fchmod"})


class FailingOs:
    def __init__(self, calls: frozenset[str] = CALLS, fail_at: int = 0, error: BaseException | None = None) -> None:
        self.calls, self.fail_at, self.error, self.count = calls, fail_at, error, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.calls:
            return real

        def called(*given: Any, **named: Any) -> Any:
            self.count += 1
            if self.error is not None and (self.count == self.fail_at or not self.fail_at):
                if name == "write" and len(given[1]) > 1:
                    real(given[0], bytes(given[1])[: len(given[1]) // 2])  # some of it arrives
                raise self.error
            return real(*given, **named)

        return called


@contextmanager
def failing(**how: Any) -> Iterator[FailingOs]:
    """Fails the call number ``fail_at``, or each where that is 0, for the length of the block."""
    with pytest.MonkeyPatch.context() as patch:
        standing = FailingOs(**how)
        patch.setattr(files, "os", standing)
        yield standing

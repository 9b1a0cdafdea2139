"""How long a chunk of prompts may be, so that rows beside it do not wait much longer than for a token."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

TOKENS_HELD_UP = 2
"""A chunk may take as long as so many tokens of who decodes."""
QUICKEST_SECONDS = 0.02
"""Nobody sees less."""
SMALLEST_CHUNK = 32
"""Tokens. In smaller pieces a prompt takes too long."""
WEIGHT = 0.2
"""Of the newest time in the running means."""


class Pace:
    """Running means of what prompts and decoding take on this machine."""

    def __init__(self) -> None:
        self._seconds_a_prompt_token = 0.0
        self._seconds_a_step = 0.0

    def chunk(self, largest: int) -> int:
        """Tokens of prompts, from what was seen so far."""
        if not self._seconds_a_prompt_token:
            return largest
        allowed = max(QUICKEST_SECONDS, TOKENS_HELD_UP * self._seconds_a_step)
        return min(largest, max(SMALLEST_CHUNK, int(allowed / self._seconds_a_prompt_token)))

    @contextmanager
    def prompts(self, work: Sequence[tuple[Any, int]]) -> Iterator[None]:
        """Times a forward over so many tokens of each of some prompts."""
        started = time.monotonic()
        yield
        if work:
            padded = len(work) * max(count for _, count in work)
            self._seconds_a_prompt_token = _mean(self._seconds_a_prompt_token, (time.monotonic() - started) / padded)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Times a forward of one token for every row."""
        started = time.monotonic()
        yield
        self._seconds_a_step = _mean(self._seconds_a_step, time.monotonic() - started)


def _mean(old: float, new: float) -> float:
    return new if not old else old + WEIGHT * (new - old)

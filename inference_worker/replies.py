"""Tokens → the text of a reply, piece by piece: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"


class Reply:
    """The text of one reply as it grows. All pieces together are its tokens' text, cut before the first stop string."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        # Tokenizers write a token differently at the beginning of a text; so new tokens are decoded behind a few
        # known ones, from _context on, and what those say alone is subtracted.
        self._context = 0
        self._read = 0
        self._held = ""
        self.stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """The text that can be said now that ``tokens`` are there."""
        if self.stopped:
            return ""
        self._tokens += tokens
        known = self._decode(self._tokens[self._context : self._read])
        text = self._decode(self._tokens[self._context :])
        if text.endswith(INCOMPLETE) or len(text) <= len(known):
            return ""
        self._context, self._read = self._read, len(self._tokens)
        return self._release(text[len(known) :])

    def end(self) -> str:
        """What is left to say when no more tokens come."""
        if self.stopped:
            return ""
        known = self._decode(self._tokens[self._context : self._read])
        rest = self._decode(self._tokens[self._context :])[len(known) :]
        text = self._release(rest)
        text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        text = self._held + text
        found = [position for stop in self._stop if (position := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that a stop string could go on from."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)

"""What the step thread is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from genome.errors import GenomeError
from inference_worker.engine import Likelihood, Question, Row, Terms
from inference_worker.readings import Reading
from inference_worker.sampling import Logprobs, Sampler

Finish = Literal["stop", "length"]


class EngineFailure(GenomeError):
    """The engine could not go on with a request."""


@dataclass(frozen=True)
class Token:
    """One token of a reply; ``finish`` says why there are no more."""

    id: int
    finish: Finish | None = None
    logprobs: Logprobs | None = None
    """Where they were asked for."""


@dataclass(frozen=True)
class Failed:
    """A request ended without its answer."""

    error: GenomeError


@dataclass(eq=False)
class Generation:
    """A reply in the making."""

    terms: Terms
    prompt: tuple[int, ...]
    sampler: Sampler
    max_tokens: int
    end_tokens: frozenset[int]
    background: bool = False
    deliver: Callable[[Token | Failed], None] = lambda event: None
    cancelled: bool = False
    row: Row | None = None
    written: list[int] = field(default_factory=list)
    recalled: int = 0
    """Tokens of the prompt that the prefix cache had."""

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.prompt, *self.written)

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.prompt) + len(self.written) - (self.row.length if self.row else 0)

    def next_tokens(self, limit: int) -> tuple[int, ...] | list[int]:
        """At most ``limit`` of the tokens to compute."""
        start = self.row.length if self.row else 0
        if start >= len(self.prompt):
            return self.written[start - len(self.prompt) :][:limit]
        return (*self.prompt[start:], *self.written)[:limit]


@dataclass(eq=False)
class Scoring:
    """Questions in the making; delivers all answers in order, at once."""

    questions: tuple[Question, ...]
    background: bool = False
    deliver: Callable[[list[list[Likelihood]] | Failed], None] = lambda event: None
    cancelled: bool = False
    answers: list[list[Likelihood]] = field(default_factory=list)
    reading: Reading | None = None


Request = Generation | Scoring
Event = Token | Failed | list[list[Likelihood]]


def deliver(events: list[tuple[Request, Event]]) -> None:
    """Hands events to the requests they belong to, unless those were cancelled."""
    for request, event in events:
        if not request.cancelled:
            request.deliver(event)  # type: ignore[arg-type]

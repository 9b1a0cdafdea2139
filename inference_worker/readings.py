"""Questions too long for one forward: the prompt is read into a row in chunks, then each continuation follows.

Nobody waits for more than one chunk, or one continuation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from inference_worker.engine import Engine, Likelihood, Question, Row, Terms
from inference_worker.prefixes import Prefixes, Sequenced


@dataclass(eq=False)
class Reading:
    """One long question on its way through a row of its own."""

    question: Question
    row: Row
    answers: list[Likelihood] = field(default_factory=list)

    @property
    def terms(self) -> Terms:
        return self.question.terms

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.question.prompt

    @property
    def done(self) -> bool:
        return len(self.answers) == len(self.question.continuations)

    def step(self, engine: Engine, prefixes: Prefixes, others: Iterable[Sequenced], chunk: int) -> None:
        """One forward: the next chunk of the prompt, or the next continuation."""
        *before, last = self.question.prompt
        if not self.row.length:
            prefixes.recall(self, others)
        if unread := before[self.row.length :]:
            engine.forward([(self.row, unread[:chunk])])
            return
        continuation = self.question.continuations[len(self.answers)]
        self.answers.append(engine.likelihood(self.row, (last, *continuation)))

"""Continuous batching: which rows the next forward advances. The only caller of an engine's rows, in one thread.

A step is, in this order: one chunk of interactive prompts, one token for every row that decodes, and one forward of
other work (a scoring batch, or a chunk of a long question or of background prompts). So background work never delays an
interactive token by more than one forward. Interactive requests take a background row's place when all are taken; that
request starts again later from the tokens it has. Prompts begin with what the prefix cache has of them.

Other threads only submit and cancel. What a step brings forth is handed to ``publish`` once, at its end.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog

from genome.errors import Busy, Damaged, GenomeError, Unavailable
from inference_worker.engine import Engine, Likelihood, Logits, Question
from inference_worker.pace import Pace
from inference_worker.prefixes import Prefixes
from inference_worker.readings import Reading
from inference_worker.requests import EngineFailure, Event, Failed, Finish, Generation, Request, Scoring, Token

log = structlog.get_logger()

PROMPT_CHUNK = 512
"""Tokens of prompts a forward computes, padding included."""
SCORE_CHUNK = 1024
"""Tokens of scoring a forward computes, more only if one question is larger."""

RETRY_SECONDS = 1.0
"""What a refused request is told to wait."""


class Scheduler:
    """Runs requests on an engine, up to ``max_rows`` replies at a time; up to ``max_queue`` requests wait."""

    def __init__(
        self,
        engine: Engine,
        max_rows: int,
        max_queue: int,
        publish: Callable[[list[tuple[Request, Event]]], None],
        prefix_bytes: int = 0,
    ) -> None:
        self._engine = engine
        self._prefixes = Prefixes(engine, prefix_bytes)
        self._pace = Pace()
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._publish = publish
        self._wake = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._scoring: deque[Scoring] = deque()
        self._rows: list[Generation] = []
        self._readings: list[Scoring] = []
        """Those with a long question in a row of its own."""
        self._events: list[tuple[Request, Event]] = []
        self._scored_last = False
        self._stopped = False
        self.died = False
        """The step thread ended by an error nobody expected."""
        self._busy_since: float | None = None

    # From any thread

    def submit(self, request: Request) -> None:
        """Queues a request, or raises Busy when too many wait."""
        with self._wake:
            if self._stopped:
                raise Unavailable("the worker is shutting down", "Try again in some seconds")
            waiting = len(self._waiting) + len(self._scoring)
            if waiting >= self._max_queue:
                raise Busy(f"{waiting} requests wait already", f"Try again in {RETRY_SECONDS:g} s", RETRY_SECONDS)
            if isinstance(request, Scoring):
                self._scoring.append(request)
            else:
                self._waiting.append(request)
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """Nothing more is computed for ``request`` after the step at hand; nothing more is delivered."""
        request.cancelled = True
        with self._wake:
            for queue in (self._waiting, self._scoring):
                if request in queue:
                    queue.remove(request)  # type: ignore[arg-type]
            self._wake.notify()

    def stop(self) -> None:
        """Ends `run` after the step at hand; what waits or runs is failed."""
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def stalled_seconds(self) -> float:
        """How long the step at hand has taken; 0 between steps."""
        since = self._busy_since
        return time.monotonic() - since if since is not None else 0.0

    # In the step thread

    def run(self) -> None:
        """Steps while there is work, waits while there is none, until `stop`; then fails what is left."""
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(
                        lambda: self._stopped or self._rows or self._waiting or self._scoring or self._readings
                    )
                    if self._stopped:
                        break
                self.step()
        finally:
            self.stop()
            error = Unavailable("the worker shut down before the answer was complete", "Ask again")
            with self._wake:
                for requests in (self._rows, self._waiting, self._scoring):
                    self._events += [(request, Failed(error)) for request in requests]
            self._flush()

    def step(self) -> None:
        """One round of forwards."""
        self._busy_since = time.monotonic()
        self._free(row for row in self._rows if row.cancelled)
        for scoring in [scoring for scoring in self._readings if scoring.cancelled]:
            self._put_down(scoring)
        self._admit()
        interactive = [row for row in self._rows if row.remaining > 1 and not row.background]
        background = [row for row in self._rows if row.remaining > 1 and row.background]
        decoding = [row for row in self._rows if row.remaining == 1]
        chunk = self._chunk(beside=bool(decoding))
        if interactive:
            with self._pace.prompts(work := self._chunks(interactive, chunk)):
                self._advance(work)
        if decoding:
            with self._pace.decoding():
                self._advance([(row, 1) for row in decoding])
        # Scoring and background prompts take turns where both want to go on.
        self._scored_last = not (background and self._scored_last) and self._score(chunk)
        if background and not self._scored_last:
            self._advance(self._chunks(background, chunk))
        self._flush()
        self._busy_since = None

    def _admit(self) -> None:
        """Gives free rows to who waits, interactive requests first, and background rows to interactive requests."""
        with self._wake:
            waiting = sorted(self._waiting, key=lambda request: request.background)  # stable: oldest first
            for request in waiting:
                if len(self._rows) >= self._max_rows:
                    victim = next((row for row in reversed(self._rows) if row.background), None)
                    if request.background or victim is None:
                        break
                    self._free([victim])
                    self._waiting.appendleft(victim)
                self._waiting.remove(request)
                request.row = self._engine.open(request.terms)
                self._rows.append(request)

    def _advance(self, work: list[tuple[Generation, int]]) -> None:
        """One forward over so many tokens of each request, and a new token for those whose prompt is through."""
        requests = [request for request, _ in work]
        try:
            logits = self._engine.forward([(request.row, request.next_tokens(count)) for request, count in work])  # type: ignore[misc]
        except Exception as error:
            log.exception("a forward failed", rows=len(work))
            self._fail(requests, EngineFailure(f"the engine failed: {error}", "The worker's log says more"))
            return
        for index, request in enumerate(requests):
            if not logits.finite[index]:
                self._fail([request], EngineFailure("the model's output is not finite", "An adapter may be damaged"))
            elif request.remaining == 0:
                self._write(request, logits, index)

    def _write(self, request: Generation, logits: Logits, index: int) -> None:
        sampler, token, logprobs = request.sampler, logits.greedy[index], None
        if sampler.reads_logits:
            row = logits.row(index)
            if not sampler.plain:
                token = sampler.choose(row, request.prompt, request.written)
            logprobs = sampler.logprobs(row, token)
        request.written.append(token)
        finish: Finish | None = None
        if token in request.end_tokens:
            finish = "stop"
        elif len(request.written) >= request.max_tokens:
            finish = "length"
        self._events.append((request, Token(token, finish, logprobs)))
        if finish:
            self._free([request])

    def _chunk(self, beside: bool) -> int:
        """Tokens of prompts for one forward, padding included; ``beside`` rows that wait for their next token."""
        if not self._engine.facts.batched:  # a recurrent state takes a prompt whole or token by token
            return self._engine.facts.context_tokens
        return self._pace.chunk(PROMPT_CHUNK) if beside else PROMPT_CHUNK

    def _chunks(self, requests: list[Generation], limit: int) -> list[tuple[Generation, int]]:
        """As many prompts, oldest first, as fit one forward when padded to the longest; a long one in chunks.

        One whose beginning another row is computing waits for it.
        """
        work: list[tuple[Generation, int]] = []
        width = 0
        for index, request in enumerate(requests):
            if request.row is not None and not request.row.length:
                if self._prefixes.awaits(request, requests[:index]):
                    continue
                with unless_broken("a beginning could not be taken over"):
                    request.recalled = self._prefixes.recall(request, self._rows)
            count = min(request.remaining, limit)
            width = max(width, count)
            if work and width * (len(work) + 1) > limit:
                break
            work.append((request, count))
        return work

    def _score(self, chunk: int) -> bool:
        """One forward of scoring, interactive requests first. False if there is nothing to score."""
        with self._wake:
            scoring = min(self._scoring, key=lambda request: request.background, default=None)
        if scoring is None:
            return False
        try:
            if self._engine.facts.batched and scoring.questions[len(scoring.answers)].tokens > SCORE_CHUNK:
                self._read(scoring, chunk)
            else:
                answers = self._engine.score(_batch(scoring.questions[len(scoring.answers) :]))
                _check_finite(answers)
                scoring.answers += answers
        except Exception as error:
            log.exception("scoring failed", questions=len(scoring.questions))
            self._fail([scoring], EngineFailure(f"the engine failed: {error}", "The worker's log says more"))
            return True
        if len(scoring.answers) == len(scoring.questions):
            self._events.append((scoring, scoring.answers))
            self._dequeue(scoring)
        return True

    def _read(self, scoring: Scoring, chunk: int) -> None:
        """One forward over a long question."""
        if scoring.reading is None:
            question = scoring.questions[len(scoring.answers)]
            scoring.reading = Reading(question, self._engine.open(question.terms))
            self._readings.append(scoring)
        reading = scoring.reading
        if not reading.done:
            reading.step(self._engine, self._prefixes, self._rows, chunk)
        _check_finite([reading.answers])
        if reading.done:
            with unless_broken("a beginning could not be kept"):
                self._prefixes.keep(reading)
            self._put_down(scoring)
            scoring.answers.append(reading.answers)

    def _put_down(self, scoring: Scoring) -> None:
        """Frees the row of a long question."""
        if scoring.reading is not None:
            self._engine.close(scoring.reading.row)
            self._readings.remove(scoring)
            scoring.reading = None

    def _free(self, requests: Iterable[Generation], damaged: bool = False) -> None:
        for request in list(requests):
            self._rows.remove(request)
            if request.row is not None:
                if not damaged:
                    with unless_broken("a beginning could not be kept"):
                        self._prefixes.keep(request)
                self._engine.close(request.row)
                request.row = None

    def _fail(self, requests: Iterable[Request], error: GenomeError) -> None:
        for request in requests:
            self._events.append((request, Failed(error)))
            if isinstance(request, Scoring):
                self._put_down(request)
                self._dequeue(request)
            elif request in self._rows:
                self._free([request], damaged=True)

    def _dequeue(self, scoring: Scoring) -> None:
        with self._wake:
            if scoring in self._scoring:  # unless it was cancelled meanwhile
                self._scoring.remove(scoring)

    def _flush(self) -> None:
        events, self._events = self._events, []
        if events:
            self._publish(events)


def _check_finite(answers: list[list[Likelihood]]) -> None:
    if not all(math.isfinite(sum(answer.logprobs)) for question in answers for answer in question):
        raise Damaged("the scores are not finite", "An adapter of the stack is damaged, or diverged in training")


@contextmanager
def unless_broken(event: str) -> Iterator[None]:
    """For what only saves time: out of memory, say, it is told and left."""
    try:
        yield
    except Exception:
        log.exception(event)


def _batch(questions: tuple[Question, ...]) -> list[Question]:
    """The first questions that fit one forward when padded to the longest."""
    batch: list[Question] = []
    width = 0
    for question in questions:
        width = max(width, question.tokens)
        if batch and (question.tokens > SCORE_CHUNK or width * (len(batch) + 1) > SCORE_CHUNK):
            break
        batch.append(question)
    return batch

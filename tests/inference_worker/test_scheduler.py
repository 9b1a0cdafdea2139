"""Promises of the scheduler: who is served when, and what a cancelled or failed request leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from worker_runs import Steps, close_all, generation

from genome.errors import Busy
from inference_worker.engine import Engine, Question
from inference_worker.requests import EngineFailure, Failed, Scoring, Token, deliver


def test_a_cancelled_request_frees_its_row_at_the_next_step(steps: Steps) -> None:
    """After a cancel one step frees the row, and nothing more is delivered."""
    heard: list[Any] = []
    request = generation((5, 6, 7), 100, deliver=heard.append)
    steps.submit(request)
    steps.step()
    assert request.row is not None
    steps.cancel(request)
    before = len(steps.seen)
    steps.step()
    assert request.row is None
    assert len(steps.seen) == before
    deliver(steps.seen)
    assert heard == []


def test_a_full_queue_refuses_with_a_hint(engine: Engine) -> None:
    """One request more than may wait is refused; a cancelled one makes room."""
    steps = Steps(engine, max_queue=2)
    waiting = [generation((5, 6)) for _ in range(2)]
    for request in waiting:
        steps.submit(request)
    with pytest.raises(Busy, match="Try again"):
        steps.submit(generation((5, 6)))
    steps.cancel(waiting[0])
    steps.submit(generation((5, 6), 1))
    close_all(steps)


def test_an_interactive_request_takes_a_background_row(engine: Engine) -> None:
    """With every row taken by background work an interactive request starts at the next step, and both end right."""
    steps = Steps(engine, max_rows=1)
    alone = generation((5, 9, 40, 33), 12)
    steps.submit(alone)
    steps.step_until_done(alone)
    slow = generation((5, 9, 40, 33), 12, background=True)
    steps.submit(slow)
    for _ in range(4):
        steps.step()
    urgent = generation((7, 8), 3)
    steps.submit(urgent)
    steps.step()
    assert len(urgent.written) == 1
    steps.step_until_done(urgent, slow)
    assert slow.written == alone.written


def test_an_interactive_request_does_not_wait_behind_background_ones(engine: Engine) -> None:
    """Background requests that run, and others that came first, hold an interactive one up by no step."""
    steps = Steps(engine, max_rows=1)
    running, patient = (generation((5, 6), 6, background=True) for _ in range(2))
    steps.submit(running)
    steps.step()
    steps.submit(patient)
    urgent = generation((7, 8), 2)
    steps.submit(urgent)
    steps.step()
    assert len(urgent.written) == 1
    assert patient.written == []
    steps.step_until_done(running, patient, urgent)


class Counting:
    """An engine that notes what it was asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls: list[str] = []
        self.break_at: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forward(self, work: Sequence[Any]) -> Any:
        if self.break_at == len(self.calls):
            self.calls.append("broken")
            raise RuntimeError("out of memory")
        self.calls.append("decode" if all(len(tokens) == 1 for _, tokens in work) else "prompt")
        return self._engine.forward(work)

    def score(self, questions: Sequence[Question]) -> Any:
        self.calls.append("score")
        return self._engine.score(questions)


def test_background_work_delays_a_token_by_one_forward_at_most(engine: Engine) -> None:
    """Between two tokens of an interactive reply lies at most one forward of scoring, and the scoring goes on."""
    counting = Counting(engine)
    steps = Steps(counting)  # type: ignore[arg-type]
    question = Question((), tuple(range(5, 205)), (tuple(range(5, 205)),))
    scoring = Scoring((question,) * 12, background=True)
    request = generation((5, 6, 7), 6)
    steps.submit(scoring)
    steps.submit(request)
    steps.step_until_done(request, scoring)
    order = "".join(call[0] for call in counting.calls)
    assert order.startswith("psdsdsd")
    assert len(scoring.answers) == 12


def test_long_prompts_do_not_hold_up_who_decodes(engine: Engine) -> None:
    """While a long prompt is computed in chunks, a running reply gets its token every step."""
    steps = Steps(engine)
    running = generation((5, 6, 7), 20)
    steps.submit(running)
    steps.step()
    for _ in range(3):
        steps.submit(generation(tuple(range(10, 410)), 1))
    for _ in range(3):
        before = len(running.written)
        steps.step()
        assert len(running.written) == before + 1
    close_all(steps)


def test_a_failed_forward_fails_its_requests_and_no_others(engine: Engine) -> None:
    """An error in the engine ends the requests of that forward with a reason; later ones are served."""
    counting = Counting(engine)
    steps = Steps(counting)  # type: ignore[arg-type]
    counting.break_at = 1
    doomed = generation((5, 6, 7), 5)
    steps.submit(doomed)
    steps.step_until_done(doomed)
    assert isinstance(steps.seen[-1][1], Failed)
    assert isinstance(steps.seen[-1][1].error, EngineFailure)
    later = generation((5, 6, 7), 3)
    steps.submit(later)
    steps.step_until_done(later)
    assert steps.seen[-1] == (later, Token(later.written[-1], "length"))

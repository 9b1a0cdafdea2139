"""Promises of the scheduler under any order of requests, cancels, steps and engine failures."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from fake_engine import FakeEngine, FakeWeights, likelihood_after, logits_after
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from worker_runs import Steps, generation

from genome.errors import Busy
from inference_worker import prefixes, scheduler
from inference_worker.engine import Likelihood, Question, Term, Terms
from inference_worker.requests import EngineFailure, Failed, Generation, Request, Scoring, Token
from inference_worker.sampling import Sampler, Sampling

CHUNK = 8
"""So small that short prompts come in chunks."""
PREFIXES = 4
"""Beginnings kept: each counts as one byte here."""
READINGS = 2
"""Rows of long questions, besides those of replies: one that waits and one that came before it."""
STACKS: tuple[Terms, ...] = (
    (),
    (Term(FakeWeights("one"), 1.0),),
    (Term(FakeWeights("one"), 0.5), Term(FakeWeights("two"), 1.0)),
)
DAMAGED: Terms = (Term(FakeWeights("bad", damaged=True), 1.0),)
WAYS = (
    Sampling(),
    Sampling(repetition_penalty=1.5),
    Sampling(temperature=1.0, seed=3, min_p=0.05, logprobs=2),
)
END = frozenset({7})

tokens = st.lists(st.integers(0, 5), min_size=1, max_size=20).map(tuple)
stacks = st.sampled_from((*STACKS, *STACKS, DAMAGED))


def alone(request: Generation, sampling: Sampling) -> list[int]:
    """The tokens ``request`` has to come to, computed without a scheduler."""
    sampler, written = Sampler(sampling), []
    while len(written) < request.max_tokens and not END & set(written):
        logits = logits_after(request.terms, [*request.prompt, *written])
        written.append(sampler.choose(logits, request.prompt, written))
    return written


def answered(scoring: Scoring) -> list[list[Likelihood]]:
    return [
        [likelihood_after(asked.terms, asked.prompt, each) for each in asked.continuations]
        for asked in scoring.questions
    ]


class Serving(RuleBasedStateMachine):
    """Everyone who may ask a scheduler for something, and what everyone is owed."""

    @initialize(rows=st.integers(1, 3), queue=st.integers(1, 5), batched=st.booleans())
    def start(self, rows: int, queue: int, batched: bool) -> None:
        self.max_rows, self.max_queue = rows, queue
        self.engine = FakeEngine(batched)
        self.engine.broke = self.note_broken
        self.steps = Steps(self.engine, rows, queue, PREFIXES)  # type: ignore[arg-type]
        self.owed: dict[Request, Any] = {}
        self.broken: set[Request] = set()
        self.silent_from: dict[Request, int] = {}
        """Cancelled request → how many events it had."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(scheduler, "PROMPT_CHUNK", CHUNK)
        self.patch.setattr(scheduler, "SCORE_CHUNK", 3 * CHUNK)
        self.patch.setattr(prefixes, "SHORTEST", 2)
        self.patch.setattr(scheduler, "log", SimpleNamespace(exception=lambda *_, **__: None))

    # What may happen

    @rule(
        prompt=tokens,
        terms=stacks,
        count=st.integers(1, 20),
        sampling=st.sampled_from(WAYS),
        background=st.booleans(),
    )
    def generate(self, prompt: tuple[int, ...], terms: Terms, count: int, sampling: Sampling, background: bool) -> None:
        request = generation(prompt, count, terms, END, sampling=sampling, background=background)
        self.submit(request, alone(request, sampling))

    @rule(
        terms=st.sampled_from(STACKS),
        asked=st.lists(st.tuples(tokens, st.lists(tokens, max_size=3).map(tuple)), min_size=1, max_size=5),
        background=st.booleans(),
    )
    def score(self, terms: Terms, asked: list[tuple[Any, Any]], background: bool) -> None:
        request = Scoring(tuple(Question(terms, *each) for each in asked), background)
        self.submit(request, answered(request))

    @rule(prompt=tokens)
    @precondition(lambda self: any(each.background and len(getattr(each, "written", ())) > 2 for each in self.live()))
    def take_the_rows_of_background_work(self, prompt: tuple[int, ...]) -> None:
        for _ in range(self.max_rows):
            self.generate(prompt, (), 1, WAYS[0], False)
        self.step()

    @rule(data=st.data())
    @precondition(lambda self: self.live())
    def cancel(self, data: st.DataObject) -> None:
        request = self.live()[data.draw(st.integers(0, len(self.live()) - 1))]
        self.steps.cancel(request)
        self.silent_from[request] = len(self.events(request))

    @rule()
    def break_a_forward(self) -> None:
        self.engine.break_next = True

    @rule(times=st.integers(1, 6))
    def work(self, times: int) -> None:
        for _ in range(times):
            self.step()

    def step(self) -> None:
        """A step; what interactive requests get of it does not depend on background ones."""
        interactive = [each for each in self.live() if not each.background]
        before = {each: len(each.written) for each in interactive if isinstance(each, Generation)}
        decoding = [each for each in before if each.row is not None and each.remaining == 1]
        scored = {each: len(each.answers) for each in self.live() if isinstance(each, Scoring)}
        self.steps.step()
        for each in decoding:
            assert len(each.written) == before[each] + 1 or each in self.broken
        generations = [each for each in self.live() if isinstance(each, Generation)]
        if any(each.background and each.row is not None for each in generations):
            assert all(each.background or each.row is not None for each in generations)
        if any(not each.background for each in scored):
            assert all(len(each.answers) == done for each, done in scored.items() if each.background)

    # What holds

    @invariant()
    def rows_hold_what_their_requests_asked(self) -> None:
        """Every open row is one request's, holds a part of its tokens in order, and there are never too many."""
        assert self.engine.most_rows <= self.max_rows + READINGS
        owners: dict[int, Any] = {
            id(each.row): each for each in self.owed if isinstance(each, Generation) and each.row is not None
        }
        assert len(owners) <= self.max_rows
        owners |= {
            id(each.reading.row): each.reading for each in self.owed if isinstance(each, Scoring) and each.reading
        }
        assert sorted(owners) == sorted(map(id, self.engine.rows))
        for row in self.engine.rows:
            owner = owners[id(row)]
            assert row.terms == owner.terms
            assert row.tokens == list(owner.tokens[: row.length])

    @invariant()
    def everyone_hears_what_is_owed_and_ends_once(self) -> None:
        """Tokens and scores are those computed alone; nothing comes after an end, a failure or a cancel."""
        assert not self.broken & set(self.live())
        for request, owed in self.owed.items():
            events = self.events(request)
            assert len(events) <= self.silent_from.get(request, len(events))
            assert all(not self.ends(event) for event in events[:-1])
            if events and isinstance(events[-1], Failed):
                assert isinstance(events[-1].error, EngineFailure)
                assert request in self.broken or (isinstance(request, Generation) and request.terms == DAMAGED)
            elif isinstance(request, Scoring):
                assert events in ([], [owed])
            else:
                assert [event.id for event in events] == request.written == owed[: len(events)]
                assert [event.finish for event in events[:-1]] == [None] * len(events[:-1])
                assert not events or bool(events[-1].finish) == (len(events) == len(owed))

    @invariant()
    def the_queue_is_bounded(self) -> None:
        """No more wait than may, but for background requests that gave their row away."""
        assert len(self.waiting()) <= self.max_queue + self.max_rows

    def teardown(self) -> None:
        """Left alone, everything ends in a bounded number of steps, and nothing stays behind."""
        if not hasattr(self, "steps"):
            return
        for _ in range(2000):
            if not self.live():
                break
            self.step()
        self.steps.step()  # takes the rows of who was cancelled
        self.rows_hold_what_their_requests_asked()
        self.everyone_hears_what_is_owed_and_ends_once()
        assert not self.live()
        assert self.engine.rows == []
        assert not (self.steps._rows or self.steps._waiting or self.steps._scoring or self.steps._events)
        self.patch.undo()

    # Helpers

    def submit(self, request: Request, owed: Any) -> None:
        full = len(self.waiting()) >= self.max_queue
        try:
            self.steps.submit(request)
        except Busy:
            assert full
        else:
            assert not full
            self.owed[request] = owed

    def note_broken(self, asked: Sequence[Any]) -> None:
        self.broken |= {
            request
            for request in self.live()
            for each in self.computed(request)
            if any(each is other for other in asked)
        }

    def computed(self, request: Request) -> list[Any]:
        """What of a request an engine's call may be about."""
        if isinstance(request, Generation):
            return [request.row]
        return [*request.questions, *([request.reading.row] if request.reading else [])]

    def events(self, request: Request) -> list[Any]:
        return [event for other, event in self.steps.seen if other is request]

    def ends(self, event: Any) -> bool:
        return not isinstance(event, Token) or event.finish is not None

    def live(self) -> list[Request]:
        heard = {id(request) for request, event in self.steps.seen if self.ends(event)}
        return [each for each in self.owed if id(each) not in heard and not each.cancelled]

    def waiting(self) -> list[Request]:
        return [each for each in self.live() if isinstance(each, Scoring) or each.row is None]


Serving.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestServing = Serving.TestCase


def test_a_reply_longer_than_a_chunk_survives_losing_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed again in several chunks of its own tokens, it goes on as if it had never been interrupted."""
    monkeypatch.setattr(scheduler, "PROMPT_CHUNK", CHUNK)
    steps = Steps(FakeEngine(), max_rows=1)  # type: ignore[arg-type]
    slow = generation((1, 2), 40, STACKS[1], background=True)
    steps.submit(slow)
    while len(slow.written) < 30:
        steps.step()
    urgent = generation((3,), 1)
    steps.submit(urgent)
    steps.step_until_done(urgent, slow)
    uninterrupted: list[int] = []
    while len(uninterrupted) < 40:
        uninterrupted.append(int(logits_after(slow.terms, [*slow.prompt, *uninterrupted]).argmax()))
    assert slow.written == uninterrupted

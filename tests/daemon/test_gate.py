"""Promise 6 at the gate's loop: what is asked, what is decided, and that carrying it out twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fixed import NOW
from test_runner import CONFIG, runner

from daemon import orders
from daemon.events import Alarm, Announcer
from daemon.gate import Gate
from daemon.worker_client import Question
from genome import batches, curriculum, files, jobs, registry
from genome.batches import Batch, HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Intake
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.lines import from_signal
from genome.quality import AnswerScore, Verdict
from genome.registry import Stack

pytestmark = pytest.mark.anyio

POLICY = HeldOutPolicy(0.3, 150)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Worker:
    """Stands for the inference worker: a stack's score of an answer is what ``sees`` says."""

    sees: Callable[[Stack, str, bool], AnswerScore]
    """(stack, answer, whether it is the question's own) → score."""
    loaded: list[str] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def load(self, _path: Any, adapter_id: str, _digest: str) -> None:
        self.loaded.append(adapter_id)

    async def score(self, questions: Sequence[Question], stack: Stack) -> list[tuple[AnswerScore, ...]]:
        self.asked.append(tuple(question.answers[0] for question in questions))
        return [
            tuple(self.sees(stack, answer, index == 0) for index, answer in enumerate(question.answers))
            for question in questions
        ]

    async def adapters(self) -> list[Any]:
        return []


def learns(stack: Stack, _answer: str, own: bool) -> AnswerScore:
    """The candidate finds a question's own answer likelier than before, and others' as before."""
    return AnswerScore(-10.0 if own and stack else -30.0, 10, 9)


def learns_style(stack: Stack, _answer: str, _own: bool) -> AnswerScore:
    """The candidate finds every answer likelier alike."""
    return AnswerScore(-10.0 if stack else -30.0, 10, 9)


def gate(home: Home, worker: Worker) -> Gate:
    return Gate(home, CONFIG, worker, Announcer(), Alarm(), Alarm())  # type: ignore[arg-type]


@pytest.fixture
def candidate(home: Home, signal: Callable[..., Any]) -> Callable[[int], Any]:
    """Brings forty signals, numbered from a first one, to a trained candidate that waits for the gate."""

    async def make(first: int) -> tuple[JobDirectory, Batch]:
        into = Buffer(home, Intake())
        into.load()
        into.accept([from_signal(signal(first + i)) for i in range(40)], NOW)
        batch = batches.form(home, "helper", "git", "test", NOW, POLICY)
        assert batch is not None
        config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"trainer": "torch"})})
        job = orders.order(home, config, batch, home.root, "f" * 64)
        await runner(home, "works").step()
        return jobs.find(home, job.id), batch

    return make


async def test_a_better_candidate_is_promoted_and_its_batch_archived(home: Home, candidate: Any) -> None:
    """Loaded on standby, judged, promoted: the verdict's numbers stay with the completed job."""
    directory, batch = await candidate(0)
    worker = Worker(learns)
    await gate(home, worker).step()
    promotion = registry.current(home, "helper")
    assert promotion is not None and [entry.adapter for entry in promotion.stack] == ["helper/git-v1.0"]
    assert worker.loaded == ["helper/git-v1.0"]
    assert [done.id for done in batches.archived(home, "helper", "git")] == [batch.id]
    done = jobs.find(home, directory.id)
    assert done.path.parent == home.completed_jobs and done.state() == "promoted"
    assert Verdict.read(done.verdict_file).after is not None


async def test_style_alone_is_refused_and_nothing_is_lost(home: Home, candidate: Any) -> None:
    """The batch is set aside with the reason; nothing is promoted."""
    directory, batch = await candidate(0)
    await gate(home, Worker(learns_style)).step()
    assert registry.current(home, "helper") is None
    assert [kept.id for kept in batches.set_aside_batches(home, "helper", "git")] == [batch.id]
    assert len(list(batches.signals(home, batch))) == 40
    assert "did not surely rise" in (home.set_aside("helper", "git") / batch.id / "reason.txt").read_text()
    assert jobs.find(home, directory.id).state() == "refused"


async def test_what_earlier_batches_taught_must_still_be_known(home: Home, candidate: Any) -> None:
    """The second batch is judged on the first one's held-out questions too, against the incumbent."""
    _, first = await candidate(0)
    await gate(home, Worker(learns)).step()
    directory, _ = await candidate(100)
    earlier = {signal.correct_output for signal in curriculum.held_out_part(home, first)}

    def forgets(stack: Stack, answer: str, own: bool) -> AnswerScore:
        is_new = bool(stack) and stack[0].adapter.endswith("v1.1")
        return AnswerScore(-10.0 if own and is_new else -30.0, 10, 8 if is_new and answer in earlier else 9)

    worker = Worker(forgets)
    await gate(home, worker).step()
    assert set(worker.asked[-1]) == earlier
    verdict = Verdict.read(jobs.find(home, directory.id).verdict_file)
    assert verdict.incumbent == ("helper/git-v1.0",) and not verdict.promote and "recall: 0.889" in verdict.reason
    assert [entry.adapter for entry in registry.stack_of(home, "helper")] == ["helper/git-v1.0"]


@pytest.mark.parametrize("acts", range(6))
async def test_a_verdict_is_carried_out_once_wherever_it_stops(
    home: Home, candidate: Any, monkeypatch: pytest.MonkeyPatch, acts: int
) -> None:
    """Killed before any of the acts that follow a verdict, the next start does the rest: one promotion, one archive."""
    directory, batch = await candidate(0)
    done = 0

    def dies_after(act: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            nonlocal done
            if done == acts:
                raise KeyboardInterrupt
            done += 1
            return act(*arguments)

        return wrapped

    with monkeypatch.context() as patched:
        for name in ("write", "create", "move"):
            patched.setattr(files, name, dies_after(getattr(files, name)))
        with pytest.raises(KeyboardInterrupt) if acts < 5 else _nothing():
            await gate(home, Worker(learns)).step()
    batches.settle(home)
    await gate(home, Worker(learns)).step()
    assert [made.number for made in registry.history(home, "helper")] == [1]
    assert len(list(batches.signals(home, batch))) == 40 and batches.queued(home, "helper", "git") == []
    assert jobs.find(home, directory.id).state() == "promoted"


async def test_a_batch_whose_answers_are_all_alike_is_no_evidence(home: Home, signal: Any) -> None:
    """Without another answer to compare with nothing can be shown, and the verdict says so."""
    from daemon.gate import contrast_questions

    assert contrast_questions([signal(i, correctOutput="yes") for i in range(20)], 8) == []


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()

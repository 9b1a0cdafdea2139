"""Promise 6 at the gate's loop: what is asked, what is decided, and that carrying it out twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fixed import NOW
from test_runner import CONFIG, runner

from daemon import exam, orders, planner, status
from daemon.events import Alarm, Announcer
from daemon.gate import Gate
from daemon.worker_client import Question
from genome import batches, curriculum, files, jobs, pending, provenance, registry, retraction
from genome.batches import Batch, HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config, Intake, Rung
from genome.errors import InvalidInput
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.lines import from_signal
from genome.promotions import Stack
from genome.quality import Verdict
from genome.scores import AnswerScore

POLICY = HeldOutPolicy(0.3, 150)


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


def learns_more(stack: Stack, _answer: str, own: bool) -> AnswerScore:
    """Each version finds a question's own answer likelier than the one before it."""
    version = int(stack[0].adapter.rpartition(".")[2]) + 1 if stack else 0
    return AnswerScore(-60.0 + 10 * version if own else -60.0, 10, 9)


async def promoted(home: Home, directory: JobDirectory, sees: Any) -> Verdict:
    await gate(home, Worker(sees)).step()
    return Verdict.read(jobs.find(home, directory.id).verdict_file)


def learns_style(stack: Stack, _answer: str, _own: bool) -> AnswerScore:
    """The candidate finds every answer likelier alike."""
    return AnswerScore(-10.0 if stack else -30.0, 10, 9)


def gate(home: Home, worker: Worker, **settings: Any) -> Gate:
    """With no second try for a refused batch, unless ``settings`` say so."""
    judging = CONFIG.gate.model_copy(update={"ladder": (), **settings})
    config = CONFIG.model_copy(update={"gate": judging})
    return Gate(home, config, worker, Announcer(), Alarm(), Alarm())  # type: ignore[arg-type]


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
    """The second batch is judged on what the first taught, against the incumbent: on what it did not train again."""
    _, first = await candidate(0)
    await gate(home, Worker(learns)).step()
    directory, _ = await candidate(100)
    taught = {signal.id: signal.correct_output for signal in curriculum.training_part(home, first)}
    again = {example.id for example in jobs.read_examples(directory.examples)}
    earlier = {answer for signal, answer in taught.items() if signal not in again}

    def forgets(stack: Stack, answer: str, own: bool) -> AnswerScore:
        is_new = bool(stack) and stack[0].adapter.endswith("v1.1")
        return AnswerScore(-10.0 if own and is_new else -30.0, 10, 8 if is_new and answer in taught.values() else 9)

    worker = Worker(forgets)
    await gate(home, worker).step()
    assert set(worker.asked[-1]) == earlier and len(earlier) == 14
    verdict = Verdict.read(jobs.find(home, directory.id).verdict_file)
    assert verdict.incumbent == ("helper/git-v1.0",) and not verdict.promote and "recall/git: 0.889" in verdict.reason
    assert [entry.adapter for entry in registry.stack_of(home, "helper")] == ["helper/git-v1.0"]


@pytest.mark.parametrize("acts", range(7))
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
        with pytest.raises(KeyboardInterrupt) if acts < 6 else _nothing():
            await gate(home, Worker(learns)).step()
    batches.settle(home)
    await gate(home, Worker(learns)).step()
    assert [made.number for made in registry.history(home, "helper")] == [1]
    assert len(list(batches.signals(home, batch))) == 40 and batches.queued(home, "helper", "git") == []
    assert jobs.find(home, directory.id).state() == "promoted"


async def test_a_refused_batch_is_tried_with_other_settings_first(home: Home, candidate: Any) -> None:
    """Rung by rung, then it is set aside. Each try is a job of its own; a fresh start goes on from nothing."""
    directory, batch = await candidate(0)
    rungs = (Rung(learning_rate=0.5), Rung(fresh=True, anchors=2.0))
    for attempt, rung in enumerate(rungs, 2):
        await gate(home, Worker(learns_style), ladder=rungs).step()
        assert batches.queued(home, "helper", "git") == [batch] and planner.unordered(home) == [batch]
        config = Config.model_validate({"base": "base", "gate": {"ladder": rungs}, "training": {"trainer": "torch"}})
        job = orders.order(home, config, batch, home.root, "f" * 64)
        assert job.id == f"{directory.id}.{attempt}" and planner.unordered(home) == []
        assert job.settings.learning_rate == config.training.settings(home.root).learning_rate * rung.learning_rate
        assert job.settings.anchor_weight == config.training.anchor_weight * rung.anchors
        await runner(home, "works").step()
    await gate(home, Worker(learns_style), ladder=rungs).step()
    assert batches.queued(home, "helper", "git") == [] == planner.unordered(home)
    assert [kept.id for kept in batches.set_aside_batches(home, "helper", "git")] == [batch.id]
    assert [directory.state() for directory in jobs.completed(home)] == ["refused"] * 3


async def test_too_little_evidence_waits_for_more_signals(home: Home, candidate: Any) -> None:
    """Neither promoted nor refused: the signals are pending again, and the next batch holds them with what came."""
    directory, batch = await candidate(0)

    def may_learn(stack: Stack, answer: str, own: bool) -> AnswerScore:
        gain = 16.0 if int(answer.rpartition(" ")[2]) % 2 else -14.0
        return AnswerScore(-26.0 + gain if stack and own else -26.0, 10, 9)

    await gate(home, Worker(may_learn)).step()
    verdict = Verdict.read(jobs.find(home, directory.id).verdict_file)
    assert verdict.undecided and not verdict.promote and "not enough evidence" in verdict.reason
    assert pending.count(home, "helper", "git").examples == 40
    assert batches.queued(home, "helper", "git") == [] == batches.set_aside_batches(home, "helper", "git")
    again, larger = await candidate(100)
    assert larger.signals == 80 and again.id != directory.id and set(larger.segments) > set(batch.segments)


async def test_what_was_held_out_is_trained_with_the_next_batch(home: Home, candidate: Any) -> None:
    """So that no correction is lost to measuring; once."""
    _, first = await candidate(0)
    await gate(home, Worker(learns)).step()
    directory, second = await candidate(100)
    assert set(first.held_out) == set(second.graduates) and len(first.held_out) == 12
    assert {example.id for example in jobs.read_examples(directory.examples)} >= set(first.held_out)
    assert (await promoted(home, directory, learns_more)).promote
    _, third = await candidate(200)
    assert set(third.graduates) == set(second.held_out)


async def test_two_batches_that_wait_do_not_both_train_what_was_held_out(home: Home, candidate: Any) -> None:
    """The second is formed before the first is judged; if the first is refused, a later one trains it after all."""
    _, first = await candidate(0)
    await gate(home, Worker(learns)).step()
    directory, second = await candidate(100)
    into = Buffer(home, Intake())
    into.load()
    into.accept([from_signal(signal_of(home, first, number)) for number in range(200, 240)], NOW)
    third = batches.form(home, "helper", "git", "test", NOW, POLICY)
    assert third is not None and set(second.graduates) == set(first.held_out) and third.graduates == ()
    assert not (await promoted(home, directory, learns_style)).promote
    batches.release(home, third)
    again = batches.form(home, "helper", "git", "test", NOW, POLICY)
    assert again is not None and set(again.graduates) == set(first.held_out)


def signal_of(home: Home, batch: Batch, number: int) -> Any:
    """A signal like those of a batch, with another question."""
    like = next(batches.signals(home, batch))
    return like.model_copy(update={"id": f"new {number}", "input": f"question {number}",
                                   "correct_output": f"answer {number}"})  # fmt: skip


async def test_nothing_is_lost_a_little_at_a_time(home: Home, candidate: Any) -> None:
    """0.96 of each predecessor passes once: the second is held against the best there was, not the last."""
    tokens = {"": 100, "helper/git-v1.0": 100, "helper/git-v1.1": 97, "helper/git-v1.2": 94}

    def wears_off(stack: Stack, _answer: str, own: bool) -> AnswerScore:
        version = stack[0].adapter if stack else ""
        return AnswerScore((-10.0 - 10 * (3 - list(tokens).index(version))) if own else -50.0, 100, tokens[version])

    for first in (0, 100, 200):
        directory, _ = await candidate(first)
        await gate(home, Worker(wears_off)).step()
    verdict = Verdict.read(jobs.find(home, directory.id).verdict_file)
    failed = [finding for finding in verdict.findings if not finding.passed]
    assert [(each.name, each.against) for each in failed] == [("retention/recall/git/best", "helper/git-v1.0")]
    assert registry.stack_of(home, "helper")[0].adapter == "helper/git-v1.1"


@pytest.mark.parametrize("when", ["while it is judged", "after the verdict"])
async def test_a_candidate_is_not_promoted_once_its_signal_was_retracted(
    home: Home, candidate: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whatever it learned. Its batch is ordered again without the signal."""
    directory, batch = await candidate(0)
    taken_back = curriculum.training_part(home, batch)[3].id
    loop = gate(home, Worker(learns))
    act = "_judge" if when == "while it is judged" else "_record"
    original = getattr(Gate, act)

    async def judged(self: Gate, *arguments: Any) -> Any:
        found = await original(self, *arguments)
        retraction.retract(home, taken_back, "not mine", NOW)
        return found

    def recorded(self: Gate, *arguments: Any) -> Any:
        found = original(self, *arguments)
        retraction.retract(home, taken_back, "not mine", NOW)
        return found

    monkeypatch.setattr(Gate, act, judged if act == "_judge" else recorded)
    with files.locked(home.daemon_lock, "a daemon"):  # with none running the verb ends the job itself
        await loop.step()
    assert registry.current(home, "helper") is None and batches.archived(home, "helper", "git") == []
    assert planner.unordered(home) == [batch]
    again = orders.order(home, CONFIG.model_copy(update={"training": CONFIG.training.model_copy(
        update={"trainer": "torch"})}), batch, home.root, "f" * 64)  # fmt: skip
    assert again.id != directory.id and again.attempt == 1
    assert taken_back not in {example.id for example in jobs.read_examples(jobs.find(home, again.id).examples)}


async def test_a_rebuild_must_only_keep_what_was_known(home: Home, candidate: Any) -> None:
    """It teaches nothing new, so it is not asked whether it learned; a version without the signal serves in the end."""
    _, batch = await candidate(0)
    await gate(home, Worker(learns)).step()
    taken_back = curriculum.training_part(home, batch)[3].id
    retraction.retract(home, taken_back, "not mine", NOW)
    (rebuild,) = batches.queued(home, "helper", "git")
    assert rebuild.rebuilds == (batch.id,)
    config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"trainer": "torch"})})
    job = orders.order(home, config, rebuild, home.root, "f" * 64)
    await runner(home, "works").step()
    verdict = await promoted(home, jobs.find(home, job.id), learns)
    assert verdict.promote and {finding.name.partition("/")[0] for finding in verdict.findings} == {"retention"}
    serving = registry.stack_of(home, "helper")[0].adapter
    assert provenance.tainted(home, serving) == () and provenance.tainted(home, "helper/git-v1.0") == (taken_back,)


async def test_the_users_own_questions_are_asked(home: Home, candidate: Any) -> None:
    """A golden set is an old set of its own; what cannot be read is named by file and line."""
    golden = home.golden("helper") / "mine.jsonl"
    golden.parent.mkdir(parents=True)
    golden.write_text('{"input": "who are you?", "correctOutput": "your helper"}\n')
    directory, batch = await candidate(0)

    def forgets_itself(stack: Stack, answer: str, own: bool) -> AnswerScore:
        return AnswerScore(-10.0 if own and stack else -30.0, 10, 0 if stack and answer == "your helper" else 9)

    await gate(home, Worker(forgets_itself)).step()
    verdict = Verdict.read(jobs.find(home, directory.id).verdict_file)
    assert not verdict.promote and "golden/token_accuracy: 0.000" in verdict.reason
    golden.write_text('{"input": "who are you?", "correctOutput": "x", "measure": "taste"}\n')
    with pytest.raises(InvalidInput, match=r"mine\.jsonl:1: there is no measure 'taste'"):
        exam.golden(home, CONFIG, batch.persona)


async def test_status_names_a_golden_line_that_cannot_be_read(home: Home) -> None:
    """Before a training is spent on a candidate that could not be judged; of every persona, one line each."""
    for persona, line in (("a", "{"), ("b", '{"input": "x", "pattern": "("}'), ("c", '{"input": "x", "pattern": "y"}')):
        home.golden(persona).mkdir(parents=True)
        (home.golden(persona) / "mine.jsonl").write_text(line + "\n")
    found = status.read(home, CONFIG)["golden"]
    assert len(found) == 2 and "a/golden/mine.jsonl:1" in found[0] and "no regular expression" in found[1]


async def test_a_batch_whose_answers_are_all_alike_is_no_evidence(home: Home, signal: Any) -> None:
    """Without another answer to compare with nothing can be shown, and the verdict says so."""
    from daemon.exam import contrast_questions

    assert contrast_questions([signal(i, correctOutput="yes") for i in range(20)], 8) == []


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()

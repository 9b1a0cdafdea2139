"""Poison search: a refused batch is bisected by real jobs, judged by the gate, to the signals that break it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from fixed import NOW
from hypothesis import given
from hypothesis import strategies as st
from test_gate import Worker, gate
from test_runner import runner

from daemon import actions, orders, searcher
from daemon.events import Alarm, Announcer
from daemon.searcher import Searcher
from genome import adapters, batches, curriculum, jobs, pending, poison, registry, retraction
from genome.batches import Batch, HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.errors import Conflict
from genome.jobs import Result
from genome.layout import Home
from genome.lines import from_signal
from genome.poison import Part, Poison, Search
from genome.promotions import Stack
from genome.quality import Finding, Verdict
from genome.scores import AnswerScore

CONFIG = Config.model_validate({"base": "base", "training": {"trainer": "torch"}})


def search(whole: Part, breaks: Callable[[Part], bool], smallest: int = 1, most: int = 1000) -> tuple[set[str], int]:
    """What a search names when a part breaks as ``breaks`` says, and how many probes it took."""
    probed: dict[Part, bool] = {}
    asked = Search(batch="b", max_probes=most, smallest=smallest, whole=whole, created=0)
    while (found := poison.progress(asked, probed)).next is not None:
        assert found.next not in probed
        probed[found.next] = breaks(found.next)
    return {each for part in found.suspects for each in part}, len(probed)


@given(st.integers(2, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_every_poisonous_signal_is_named_and_no_other(drawn: tuple[int, set[int]]) -> None:
    """Where each breaks the gate by itself. A part that was probed is never probed again."""
    whole = tuple(str(number) for number in range(drawn[0]))
    bad = {str(number) for number in drawn[1]}
    named, probes = search(whole, lambda part: bool(bad & set(part)))
    assert named == bad and probes <= 2 * len(bad) * drawn[0].bit_length()


def test_signals_that_break_only_together_are_named_together() -> None:
    """The smallest part that holds them all."""
    whole = tuple("abcdefgh")
    assert search(whole, lambda part: {"a", "d"} <= set(part))[0] == set("abcd")


def test_a_search_that_runs_out_of_probes_names_what_it_knows() -> None:
    """Part of the batch, and never more probes than allowed."""
    whole = tuple(str(number) for number in range(64))
    named, probes = search(whole, lambda part: "5" in part, most=3)
    assert probes == 3 and "5" in named and len(named) < 64


def test_what_was_retracted_is_probed_no_more_and_blames_no_other() -> None:
    """The parts stay what they were, so that earlier probes still count; a part of retracted ones alone is passed
    over. Where the rest breaks nothing, the retracted one was it."""
    whole = tuple("abcdefgh")
    asked = Search(batch="b", max_probes=9, smallest=1, whole=whole, created=0)
    halves = {tuple("abcd"): True, tuple("efgh"): False}
    assert poison.progress(asked, halves).next == ("a", "b")
    assert poison.progress(asked, halves, gone=("a",)).next == ("a", "b"), "without it, what is left is probed"
    assert poison.progress(asked, halves, gone=("a", "b")).next == ("c", "d")
    without = {**halves, ("a", "b"): False, ("c", "d"): False}
    assert poison.progress(asked, without).suspects == (tuple("abcd"),)
    assert poison.progress(asked, without, gone=("a",)).suspects == ()


def verdict(created: int = 0, **findings: tuple[bool, bool, float]) -> Verdict:
    """Of findings (passed, undecided, upper bound) by name."""
    found = tuple(
        Finding(name=name.replace("__", "/"), passed=passed, undecided=undecided, value=0.0, low=-1.0, high=high,
                required=0.0, questions=9, explanation="")
        for name, (passed, undecided, high) in findings.items()
    )  # fmt: skip
    return Verdict(job="j", candidate="helper/git-v1.0", incumbent=(), promote=False, reason="", findings=found,
                   created=created)  # fmt: skip


def test_what_could_not_be_told_of_old_questions_is_searched_too() -> None:
    """It refuses a batch like a failure, so a part broke by it as well. Too few new questions say nothing of a part."""
    refused = verdict(evidence=(False, True, 9), learned=(False, True, 1), retention__anchors=(False, True, 0.97))
    assert poison.why(refused) == ["learned", "retention/anchors"]
    assert poison.broke(verdict(retention__anchors=(False, True, 0.97)), poison.why(refused))
    assert poison.broke(verdict(learned=(False, False, -0.1)), poison.why(refused))
    assert not poison.broke(verdict(learned=(False, True, 1)), poison.why(refused))
    assert not poison.broke(verdict(retention__recall=(False, False, 0.5)), poison.why(refused))


def forgets_by(home: Home, bad: str) -> Callable[[Stack, str, bool], AnswerScore]:
    """Versions that were trained on ``bad`` no longer know who they are."""
    trained: dict[str, bool] = {}

    def sees(stack: Stack, answer: str, own: bool) -> AnswerScore:
        for entry in stack:
            if entry.adapter not in trained:
                made = adapters.manifest(home, entry.adapter)
                examples = jobs.read_examples(jobs.find(home, made.job or "").examples)
                trained[entry.adapter] = bad in {example.id for example in examples}
        forgot = answer == "your helper" and any(trained[entry.adapter] for entry in stack)
        return AnswerScore(-10.0 if own and stack else -30.0, 10, 0 if forgot else 9)

    return sees


@pytest.fixture
def refused(home: Home, signal: Callable[..., Any]) -> Callable[[], Awaitable[Refused]]:
    """A batch of forty signals that was refused for one of them, which makes what trains on it forget who it is."""

    async def make() -> Refused:
        golden = home.golden("helper") / "mine.jsonl"
        golden.parent.mkdir(parents=True)
        golden.write_text('{"input": "who are you?", "correctOutput": "your helper"}\n')
        into = Buffer(home, Intake())
        into.load()
        into.accept([from_signal(signal(i)) for i in range(40)], NOW)
        batch = batches.form(home, "helper", "git", "test", NOW, HeldOutPolicy(0.3, 150))
        assert batch is not None
        bad = curriculum.training_part(home, batch)[13].id
        orders.order(home, CONFIG, batch, home.root, "f" * 64)
        worker = Worker(forgets_by(home, bad))
        await runner(home, "works").step()
        await gate(home, worker).step()
        return Refused(batch, bad, worker, Searcher(home, CONFIG, home.root, "f" * 64, Announcer(), Alarm()))

    return make


@dataclass(frozen=True)
class Refused:
    batch: Batch
    bad: str
    worker: Worker
    loop: Searcher

    async def probe(self, home: Home) -> None:
        """One turn of the daemon."""
        await self.loop.step()
        await runner(home, "works").step()
        await gate(home, self.worker).step()

    async def to_the_end(self, home: Home) -> dict[str, Any]:
        while home.search("helper", "git", self.batch.id).exists():
            await self.probe(home)
        return searcher.ask(home, self.batch.id, None, 1)


async def test_a_search_that_ran_out_of_probes_goes_on_with_more(home: Home, refused: Any) -> None:
    """From where it was. As many as before, or no number, asks only what was found."""
    found = await refused()
    searcher.ask(home, found.batch.id, 3, 1)
    ended = await found.to_the_end(home)
    assert (ended["complete"], ended["probes"]) == (False, 3) and found.bad in ended["signals"]
    assert "--max-probes 6" in searcher.said(ended)
    assert searcher.ask(home, found.batch.id, 3, 1)["state"] == "ended"
    assert searcher.ask(home, found.batch.id, 20, 1) == {"batch": found.batch.id, "state": "searching", "probes": 3}
    ended = await found.to_the_end(home)
    assert ended["complete"] and ended["signals"] == (found.bad,) and 3 < ended["probes"] <= 20


async def test_a_probe_that_was_not_judged_is_no_verdict(home: Home, refused: Any) -> None:
    """One that was withdrawn is made again under another number; one that cannot be trained ends the search, which
    says so, instead of being tried for ever."""
    found = await refused()
    searcher.ask(home, found.batch.id, 16, 1)
    await found.loop.step()
    (first,) = jobs.active(home)
    part = first.job().part
    retraction.withdraw(home, first)
    assert searcher.ask(home, found.batch.id, None, 1)["probes"] == 0
    await found.loop.step()
    (second,) = jobs.active(home)
    assert second.id.endswith(".p2") and second.job().part == part
    Result(reason="no memory").write(second.result_file)
    jobs.complete(home, second)
    await found.loop.step()
    ended = searcher.ask(home, found.batch.id, None, 1)
    assert (ended["failed"], ended["complete"], ended["probes"]) == (second.id, False, 0)
    assert f"{second.id} failed" in searcher.said(ended) and "--max-probes 32" in searcher.said(ended)
    searcher.ask(home, found.batch.id, 32, 1)
    assert (await found.to_the_end(home))["signals"] == (found.bad,)


async def test_probes_count_although_a_signal_is_retracted_meanwhile(home: Home, refused: Any) -> None:
    """The list that is halved stays what it was when it was asked for; the retracted one is trained no more."""
    found = await refused()
    asked = searcher.request(home, found.batch.id, 16, 1)
    await found.probe(home)
    gone = asked.whole[0]
    retraction.retract(home, gone, "not mine", NOW, ("helper", "git"))
    ended = await found.to_the_end(home)
    parts = [each.job().part for each in jobs.completed(home) if jobs.is_probe(each.id)]
    assert ended["signals"] == (found.bad,) and len(set(parts)) == len(parts)
    late = [each for each in jobs.completed(home) if jobs.is_probe(each.id)][1:]
    assert all(gone not in {line.id for line in jobs.read_examples(each.examples)} for each in late)


def test_a_signal_that_an_earlier_batch_held_out_is_named_by_its_text(home: Home, signal: Callable[..., Any]) -> None:
    """It is trained with this batch, though its text lies with that one."""
    into = Buffer(home, Intake())
    into.load()
    formed = []
    for first in (0, 40):
        into.accept([from_signal(signal(i)) for i in range(first, first + 40)], NOW)
        batch = batches.form(home, "helper", "git", "test", NOW, HeldOutPolicy(0.3, 150))
        assert batch is not None
        formed.append(batch)
        (batches.set_aside(home, batch, "worse") if first else batches.archive(home, batch))
    earlier, refused = formed
    graduate = earlier.held_out[0]
    Poison(batch=refused.id, signals=(graduate,), complete=True, probes=5, max_probes=16, whole=(), created=0).write(
        home.poison("helper", "git", refused.id)
    )
    found = searcher.ask(home, refused.id, None, 1)
    (text,) = (each.input for each in batches.signals(home, earlier) if each.id == graduate)
    assert found["named"] == {graduate: text} and text in searcher.said(found)


async def test_a_batch_is_searched_for_what_its_newest_verdict_says(home: Home, refused: Any) -> None:
    """The tenth attempt's name sorts before the second's."""
    found = await refused()
    for attempt, name in ((2, "retention__recall"), (10, "retention__golden")):
        job = jobs.completed(home)[0].job().model_copy(update={"id": jobs.job_id(found.batch.id, attempt)})
        directory = jobs.create(home, job, iter([]))
        Result(adapter="helper/git-v1.0").write(directory.result_file)
        verdict(4_000_000_000_000 + attempt, **{name: (False, False, 0.5)}).write(directory.verdict_file)
        jobs.complete(home, directory)
    assert searcher.refused_for(home, found.batch) == ["retention/golden"]


def test_only_what_was_refused_is_searched(home: Home, signal: Callable[..., Any]) -> None:
    """A batch that waits to be trained may be as good as any."""
    into = Buffer(home, Intake())
    into.load()
    into.accept([from_signal(signal(i)) for i in range(40)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, HeldOutPolicy(0.3, 150))
    assert batch is not None
    with pytest.raises(Conflict, match="was not set aside"):
        searcher.request(home, batch.id, 16, 1)


async def test_a_refused_batch_is_searched_by_training_its_parts(home: Home, refused: Any) -> None:
    """Each probe is a job with a part of the signals, judged and never promoted. What it names is told, and the batch
    can wait again."""
    found = await refused()
    batch, bad = found.batch, found.bad
    (text,) = (each.input for each in batches.signals(home, batch) if each.id == bad)
    assert searcher.ask(home, batch.id, 16, 1)["state"] == "searching"
    with found.loop.announcer.watch() as events:
        ended = await found.to_the_end(home)
        told = [event async for event in _so_far(events)]
    assert [event.facts["signals"] for event in told if event.name == "poison_found"] == [[bad]]
    assert ended["named"] == {bad: text} and ended["complete"] and bad in searcher.said(ended)
    assert registry.current(home, "helper") is None and jobs.refused(home, batch.id) == 1
    actions.restore(home, batch.id)
    assert pending.count(home, "helper", "git").examples == 40


async def _so_far(events: Any) -> Any:
    with suppress(anyio.WouldBlock):
        while True:
            yield events.receive_nowait()

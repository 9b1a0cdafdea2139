"""Poison search: a refused batch is bisected by real jobs, judged by the gate, to the signals that break it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
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
from genome import adapters, batches, curriculum, jobs, pending, poison, registry
from genome.batches import HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.errors import Conflict
from genome.layout import Home
from genome.lines import from_signal
from genome.poison import Part, Search
from genome.promotions import Stack
from genome.scores import AnswerScore

pytestmark = pytest.mark.anyio
CONFIG = Config.model_validate({"base": "base", "training": {"trainer": "torch"}})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def search(whole: Part, breaks: Callable[[Part], bool], smallest: int = 1, most: int = 1000) -> tuple[set[str], int]:
    """What a search names when a part breaks as ``breaks`` says, and how many probes it took."""
    probed: dict[Part, bool] = {}
    asked = Search(batch="b", max_probes=most, smallest=smallest, created=0)
    while (found := poison.progress(whole, probed, asked)).next is not None:
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


async def test_a_refused_batch_is_searched_by_training_its_parts(home: Home, signal: Callable[..., Any]) -> None:
    """Each probe is a job with a part of the signals, judged and never promoted. What it names is told, and the batch
    can wait again."""
    golden = home.golden("helper") / "mine.jsonl"
    golden.parent.mkdir(parents=True)
    golden.write_text('{"input": "who are you?", "correctOutput": "your helper"}\n')
    into = Buffer(home, Intake())
    into.load()
    into.accept([from_signal(signal(i)) for i in range(40)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, HeldOutPolicy(0.3, 150))
    assert batch is not None
    bad = curriculum.training_part(home, batch)[13]
    worker, announcer = Worker(forgets_by(home, bad.id)), Announcer()
    with pytest.raises(Conflict, match="was not set aside"):
        searcher.request(home, batch.id, 16, 1)
    orders.order(home, CONFIG, batch, home.root, "f" * 64)
    await runner(home, "works").step()
    await gate(home, worker).step()
    assert searcher.ask(home, batch.id, 16, 1)["state"] == "searching"
    loop = Searcher(home, CONFIG, home.root, "f" * 64, announcer, Alarm())
    with announcer.watch() as events:
        while home.search("helper", "git", batch.id).exists():
            await loop.step()
            await runner(home, "works").step()
            await gate(home, worker).step()
        told = [event async for event in _so_far(events)]
    assert [event.facts["signals"] for event in told if event.name == "poison_found"] == [[bad.id]]
    found = searcher.ask(home, batch.id, 16, 1)
    assert found["named"] == {bad.id: bad.input} and found["complete"] and bad.id in searcher.said(found)
    assert registry.current(home, "helper") is None and jobs.refused(home, batch.id) == 1
    actions.restore(home, batch.id)
    assert pending.count(home, "helper", "git").examples == 40


async def _so_far(events: Any) -> Any:
    with suppress(anyio.WouldBlock):
        while True:
            yield events.receive_nowait()

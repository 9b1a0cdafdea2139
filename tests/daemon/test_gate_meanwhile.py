"""What happens while a candidate is judged, or could not be: nobody else waits, and no verdict outlives its reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixed import NOW
from test_gate import Worker, gate, learns, learns_more, learns_style
from test_runner import runner

from daemon import orders
from daemon.gate import Gate
from genome import batches, jobs, registry
from genome.batches import HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.errors import GenomeError, InvalidInput
from genome.layout import Home
from genome.lines import from_signal
from genome.promotions import Stack
from genome.quality import Verdict
from genome.scores import AnswerScore

CONFIG = Config.model_validate({"base": "base", "training": {"trainer": "torch"}})


@pytest.fixture
def trained(home: Home, signal: Callable[..., Any]) -> Callable[..., Any]:
    """Brings forty signals of a persona's domain to a candidate that waits for the gate."""

    async def make(first: int = 0, **of: str) -> jobs.JobDirectory:
        into = Buffer(home, Intake())
        into.load()
        into.accept([from_signal(signal(first + i, **of)) for i in range(40)], NOW)
        persona, domain = of.get("personaId", "helper"), of.get("domain", "git")
        batch = batches.form(home, persona, domain, "test", NOW, HeldOutPolicy(0.3, 150))
        assert batch is not None
        job = orders.order(home, CONFIG, batch, home.root, "f" * 64)
        await runner(home, "works").step()
        return jobs.find(home, job.id)

    return make


async def test_one_that_cannot_be_judged_delays_no_other(home: Home, trained: Any) -> None:
    """A golden line of one persona that cannot be read is its own trouble; it is still said."""
    golden = home.golden("a") / "mine.jsonl"
    golden.parent.mkdir(parents=True)
    golden.write_text("{broken\n")
    await trained(personaId="a")
    await trained(personaId="b")
    with pytest.raises(InvalidInput, match=r"mine\.jsonl:1"):
        await gate(home, Worker(learns)).step()
    assert registry.current(home, "a") is None and registry.current(home, "b") is not None
    golden.unlink()
    await gate(home, Worker(learns)).step()
    assert registry.current(home, "a") is not None


async def test_what_is_pinned_while_it_is_judged_waits(
    home: Home, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is judged again, against what serves then, once it is unpinned."""
    await trained()
    await gate(home, Worker(learns_more)).step()
    directory = await trained(100)
    original = Gate._judge

    async def judged(self: Gate, *arguments: Any) -> Any:
        found = await original(self, *arguments)
        registry.pin(home, "helper", NOW, "exam week")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Gate, "_judge", judged)
        await gate(home, Worker(learns_more)).step()
    await gate(home, Worker(learns_more)).step()
    assert directory.state() == "judging" and registry.stack_of(home, "helper")[0].adapter == "helper/git-v1.0"
    registry.pin(home, "helper", NOW, "over", on=False)
    await gate(home, Worker(learns_more)).step()
    assert registry.stack_of(home, "helper")[0].adapter == "helper/git-v1.1"


async def test_a_canary_lets_the_next_domain_wait(home: Home, trained: Any) -> None:
    """Two at once could not be told apart: the second candidate is not judged before the first is settled."""
    await trained(domain="a")
    await trained(domain="b")
    loop = gate(home, Worker(learns))
    loop.config = loop.config.model_copy(update={"canary": loop.config.canary.model_copy(update={"share": 0.2})})
    await loop.step()
    await loop.step()
    canary = registry.canary(home, "helper")
    assert canary is not None and [entry.adapter for entry in canary.stack] == ["helper/a-v1.0"]
    assert len(jobs.active(home)) == 1
    registry.graduate(home, "helper", NOW, "good")
    await loop.step()
    assert len(jobs.active(home)) == 0


async def test_what_goes_on_from_a_withdrawn_version_is_trained_again(home: Home, trained: Any) -> None:
    """Feedback found its parent worse; what was learned on top of that must not bring it back."""
    for first in (0, 100):
        await trained(first)
        await gate(home, Worker(learns_more)).step()
    child = await trained(200)
    assert child.job().parent == "helper/git-v1.1"
    registry.withdraw(home, "helper/git-v1.1", NOW, "worse")
    await gate(home, Worker(learns_more)).step()
    assert registry.stack_of(home, "helper")[0].adapter == "helper/git-v1.0"
    (batch,) = batches.queued(home, "helper", "git")
    again = orders.order(home, CONFIG, batch, home.root, "f" * 64)
    assert again.id != child.id and again.parent == "helper/git-v1.0"


async def test_a_damaged_candidate_is_refused(home: Home, trained: Any) -> None:
    """With what is wrong; it does not come back at every step."""
    directory = await trained()
    weights = home.adapter("helper/git-v1.0") / "adapter_model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-8])
    await gate(home, Worker(learns)).step()
    verdict = Verdict.read(jobs.find(home, directory.id).verdict_file)
    assert not verdict.promote and "cannot be used" in verdict.reason


async def test_even_who_promotes_without_evidence_asks_what_was_known(home: Home, trained: Any) -> None:
    """undecided = "promote" is about what was not shown, never about what was broken."""
    golden = home.golden("helper") / "mine.jsonl"
    golden.parent.mkdir(parents=True)
    golden.write_text('{"input": "who are you?", "correctOutput": "your helper"}\n')
    directory = await trained()

    def forgets(stack: Stack, answer: str, own: bool) -> AnswerScore:
        return AnswerScore(-10.0 if own and stack else -30.0, 10, 0 if stack and answer == "your helper" else 9)

    await gate(home, Worker(forgets), undecided="promote", min_held_out=100).step()
    verdict = Verdict.read(jobs.find(home, directory.id).verdict_file)
    assert not verdict.promote and [each.passed for each in verdict.findings] == [False, False]


async def test_a_candidate_that_changed_little_starves_no_later_batch(
    home: Home, trained: Any, signal: Callable[..., Any]
) -> None:
    """Its small spread says little about the next one: enough is held out to judge by."""
    await trained()
    await gate(home, Worker(learns_style)).step()
    into = Buffer(home, Intake())
    into.load()
    into.accept([from_signal(signal(1000 + i)) for i in range(600)], NOW)
    batch = orders.form(home, CONFIG, "helper", "git", "test")
    assert batch is not None and len(batch.held_out) >= CONFIG.gate.min_held_out


async def test_what_could_not_tell_is_not_trained_again_for_one_signal_more(home: Home, trained: Any) -> None:
    """A quarter more examples must wait, however few questions were missing."""
    verdict = Verdict(job="j", candidate="c", incumbent=(), promote=False, undecided=True, needed=118, examples=400,
                      reason="", findings=(), created=0)  # fmt: skip
    assert orders.wanted(CONFIG, verdict) == 500
    assert orders.wanted(CONFIG, verdict.model_copy(update={"needed": 300})) == 1000
    assert orders.wanted(CONFIG, verdict.model_copy(update={"undecided": False})) == 0


async def test_an_error_of_the_worker_is_told(home: Home, trained: Any) -> None:
    """What is no candidate's fault is tried again, not taken for a refusal."""
    directory = await trained()

    class Away(Worker):
        async def score(self, *_: Any) -> Any:
            raise GenomeError("away")

    with pytest.raises(GenomeError, match="away"):
        await gate(home, Away(learns)).step()
    assert directory.state() == "judging" and not directory.verdict_file.exists()

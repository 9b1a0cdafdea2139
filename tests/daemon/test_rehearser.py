"""What serves rehearses while the worker is idle, and the next training is held to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trained_home
import whole_home
from fixed import NOW
from trained_home import DOMAIN, PERSONA, TrainedHome

from daemon import rehearser
from daemon.anchors import Anchor
from daemon.events import Announcer
from daemon.rehearser import Rehearser
from daemon.worker_client import Reply
from genome import files, jobs, pruning, registry, rehearsals, retraction
from genome.config import Config, Prune
from genome.errors import InvalidInput, NotFound, Unavailable
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.training import Event, Example
from genome.v1 import inference_pb2 as pb

Make = Callable[..., Any]
WANTED = 20
CONFIG = Config.model_validate(
    {"base": "base", "gate": {"anchors": 12, "min_held_out": 2, "anchor_tokens": 7},
     "training": {"trainer": "torch", "replay_fraction": 0.25, "rehearsal": WANTED, "taught_anchors": 0}}
)  # fmt: skip


@pytest.fixture
def trained(home: Home, monkeypatch: pytest.MonkeyPatch) -> TrainedHome:
    """With twelve anchors of the base: six train, and are what is rehearsed."""
    monkeypatch.setattr(trained_home, "CONFIG", CONFIG)
    lines = [Anchor(id=f"anchor-{i:02d}", prompt=f"prompt {i}", answer="a").model_dump_json() for i in range(12)]
    files.write(home.anchors(whole_home.BASE), "".join(f"{line}\n" for line in lines).encode())
    return TrainedHome(home)


@dataclass
class Worker:
    """Stands for the inference worker: it answers with a number, and may be busy, away or hold something else."""

    home: Home
    asked: list[pb.GenerateRequest] = field(default_factory=list)
    in_flight: int = 0
    fails: Callable[[int], Exception | None] = lambda _number: None
    digest: str = ""
    says: str = "answer"

    async def info(self) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(in_flight=self.in_flight)

    async def reply(self, request: pb.GenerateRequest) -> Reply:
        self.asked.append(request)
        if error := self.fails(len(self.asked)):
            raise error
        held = {each.adapter: each.digest for each in registry.stack_of(self.home, PERSONA)}
        made = [
            pb.Served.Adapter(id=each.adapter_id, digest=self.digest or held[each.adapter_id])
            for each in request.stack.entries
        ]
        return Reply(f"{self.says} {len(self.asked)}", pb.Served(adapters=made), pb.Usage(), pb.GenerateResponse.STOP)


def loop(home: Home, worker: Worker, announcer: Announcer | None = None, **settings: Any) -> Rehearser:
    training = CONFIG.training.model_copy(update=settings)
    config = CONFIG.model_copy(update={"training": training})
    return Rehearser(home, config, whole_home.BASE, worker, announcer or Announcer())  # type: ignore[arg-type]


def answers(home: Home) -> list[str]:
    return [each.answer for each in rehearsals.read(home, PERSONA, registry.stack_of(home, PERSONA))]


def held_to(directory: JobDirectory) -> list[Example]:
    return [each for each in jobs.read_examples(directory.examples) if each.teacher == "parent"]


def ten(signal: Make, first: int) -> list[Any]:
    return [signal(first + i) for i in range(10)]


async def test_what_serves_answers_the_bases_prompts(trained: TrainedHome, signal: Make) -> None:
    """By its explicit stack, in the background, those that train and none that judges; told once when it is whole."""
    made = trained.turn(ten(signal, 0))
    worker, announcer = Worker(trained.home), Announcer()
    with announcer.watch() as events:
        assert await loop(trained.home, worker, announcer).step() is None
        event = await anext(aiter(events))
    assert (event.name, event.facts) == ("rehearsed", {"persona": PERSONA, "adapters": [made], "answers": WANTED})
    assert {request.text for request in worker.asked} == {f"prompt {i}" for i in range(12) if i % 3}
    assert all(
        request.priority == pb.PRIORITY_BACKGROUND and request.sampling.max_tokens == 7 for request in worker.asked
    )
    assert {entry.adapter_id for request in worker.asked for entry in request.stack.entries} == {made}
    assert len({request.sampling.seed for request in worker.asked}) == WANTED
    assert answers(trained.home) == [f"answer {i}" for i in range(1, WANTED + 1)]
    assert await loop(trained.home, worker).step() is None and len(worker.asked) == WANTED


async def test_nobody_is_asked_where_nothing_is_to_be_rehearsed(trained: TrainedHome, signal: Make) -> None:
    """No promotion, none wanted, no anchors in use, or none sampled."""
    worker = Worker(trained.home)
    assert await loop(trained.home, worker).step() is None
    trained.turn(ten(signal, 0))
    assert await loop(trained.home, worker, rehearsal=0).step() is None
    assert await loop(trained.home, worker, anchor_weight=0.0).step() is None
    files.remove(trained.home.anchors(whole_home.BASE))
    assert await loop(trained.home, worker).step() is None and worker.asked == []


async def test_it_waits_for_an_idle_worker(trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody is answered nothing is asked, and it is looked again soon; likewise while it is away."""
    monkeypatch.setattr(rehearser.time, "time", lambda: NOW)
    trained.turn(ten(signal, 0))
    busy = Worker(trained.home, in_flight=1)
    assert await loop(trained.home, busy).step() == NOW + rehearser.BUSY_SECONDS and busy.asked == []
    away = Worker(trained.home, fails=lambda _number: Unavailable("it is away"))
    assert await loop(trained.home, away).step() == NOW + rehearser.AWAY_SECONDS
    empty = Worker(trained.home, fails=lambda _number: NotFound("it is not loaded"))
    assert await loop(trained.home, empty).step() == NOW + rehearser.BUSY_SECONDS
    other = Worker(trained.home, digest="f" * 64)
    assert await loop(trained.home, other).step() == NOW + rehearser.BUSY_SECONDS and answers(trained.home) == []


async def test_learning_goes_before_rehearsing(trained: TrainedHome, signal: Make) -> None:
    """While a job trains nothing is asked; its end wakes the loop."""
    trained.turn(ten(signal, 0))
    directory = trained.order(trained.batch(ten(signal, 100)))
    directory.record(Event(event="started"))
    worker = Worker(trained.home)
    assert await loop(trained.home, worker).step() is None and worker.asked == []
    directory.record(Event(event="stopped"))
    assert await loop(trained.home, worker).step() is None and len(worker.asked) == WANTED


async def test_it_goes_on_where_it_was(trained: TrainedHome, signal: Make) -> None:
    """After a worker that went away, a torn line, and a prompt that was refused, which is not asked for again."""
    home = trained.home
    trained.turn(ten(signal, 0))
    late = Worker(home, fails=lambda number: Unavailable("away") if number > rehearser.FEW + 3 else None)
    await loop(home, late).step()
    assert len(answers(home)) == rehearser.FEW
    place = rehearsals.path(home, PERSONA, registry.stack_of(home, PERSONA))
    place.write_bytes(place.read_bytes() + b'{"id": "torn')
    worker = Worker(home, fails=lambda number: InvalidInput("too long") if number == 1 else None)
    assert await loop(home, worker).step() is None
    known = rehearsals.read(home, PERSONA, registry.stack_of(home, PERSONA))
    assert len(worker.asked) == WANTED - rehearser.FEW and len({each.id for each in known}) == WANTED
    assert [each.answer for each in known].count("") == 1


async def test_the_next_job_is_held_to_its_parents_answers(trained: TrainedHome, signal: Make) -> None:
    """As anchors whose teacher is the parent, as many as wanted; all others are the base's."""
    home = trained.home
    trained.turn(ten(signal, 0))
    await loop(home, Worker(home)).step()
    directory = trained.order(trained.batch(ten(signal, 100)))
    rehearsed = held_to(directory)
    assert [each.response for each in rehearsed] == answers(home) and all(each.anchor for each in rehearsed)
    assert {each.prompt for each in rehearsed} == {f"prompt {i}" for i in range(12) if i % 3}
    anchors = [each for each in jobs.read_examples(directory.examples) if each.anchor and each.teacher == "base"]
    assert len(anchors) == 8
    assert b'"teacher"' not in b"".join(
        line for line in directory.examples.read_bytes().splitlines() if b"rehearsal-" not in line
    )


async def test_who_does_not_go_on_from_what_serves_is_not_held_to_it(trained: TrainedHome, signal: Make) -> None:
    """A fresh start has no parent; after a rollback what serves did not give those answers."""
    home = trained.home
    trained.turn(ten(signal, 0))
    trained.turn(ten(signal, 50))
    await loop(home, Worker(home)).step()
    batch = trained.batch(ten(signal, 100))
    job = trained.order(batch).job()
    assert len(rehearsals.of_parent(home, job)) == WANTED
    assert rehearsals.of_parent(home, job.model_copy(update={"parent": None})) == []
    assert rehearsals.of_parent(home, job.model_copy(update={"parent": None, "domain": "new"})) == []
    assert rehearsals.of_parent(home, job.model_copy(update={"parent": f"{PERSONA}/{DOMAIN}-v1.0"})) == []
    registry.roll_back(home, PERSONA, NOW, "test")
    assert rehearsals.of_parent(home, job) == []


async def test_what_no_longer_serves_is_pruned(trained: TrainedHome, signal: Make) -> None:
    """A stack's answers stay as long as it serves, a canary's others included."""
    home = trained.home
    trained.turn(ten(signal, 0))
    await loop(home, Worker(home)).step()
    first = rehearsals.path(home, PERSONA, registry.stack_of(home, PERSONA))
    pruning.carry_out(home, Prune(), NOW)
    assert first.exists()
    directory = trained.order(trained.batch(ten(signal, 50)))
    candidate = trained.train(directory)
    registry.promote(home, candidate, NOW, "better", directory.id, share=0.1)
    pruning.carry_out(home, Prune(), NOW)
    assert first.exists() and answers(home)
    registry.graduate(home, PERSONA, NOW, "better")
    assert [act.path for act in pruning.carry_out(home, Prune(), NOW) if act.kind == "remove"] == [first]
    assert not first.exists()


async def test_a_retraction_takes_what_its_versions_said_by_themselves(trained: TrainedHome, signal: Make) -> None:
    """A version may know a signal by heart: its answers go from the home and from every job, and no more are asked."""
    home, by_heart = trained.home, "xyzzy-secret"
    batch = trained.batch([signal(i, id=f"s {i}") for i in range(10)])
    lost = next(f"s {i}" for i in range(10) if f"s {i}" not in batch.held_out)
    kept = batch.held_out[0]
    trained.carry_through(batch)
    await loop(home, Worker(home, says=by_heart)).step()
    directory = trained.order(trained.batch(ten(signal, 100)))
    assert len(held_to(directory)) == WANTED
    retraction.retract(home, kept, "test", NOW)
    assert len(answers(home)) == WANTED  # nothing was trained on it
    retraction.retract(home, lost, "test", NOW)
    assert trained_home.texts(home, by_heart.encode()) == []
    worker = Worker(home)
    assert await loop(home, worker).step() is None and worker.asked == []
    stack = registry.stack_of(home, PERSONA)
    late = rehearsals.Rehearsal(id="late", prompt="p", answer=by_heart)
    assert not rehearsals.add(home, rehearsals.Missing(PERSONA, stack, 0), [late])


async def test_a_retraction_while_a_job_is_written_takes_its_rehearsal(
    trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was gathered before is taken out once it is written."""
    home = trained.home
    batch = trained.batch([signal(i, id=f"s {i}", domain=DOMAIN) for i in range(10)])
    lost = next(f"s {i}" for i in range(10) if f"s {i}" not in batch.held_out)
    trained.carry_through(batch)
    await loop(home, Worker(home, says="xyzzy-secret")).step()
    real = rehearsals.of_parent

    def retracts(*arguments: Any) -> Any:
        found = real(*arguments)
        retraction.retract(home, lost, "test", NOW)
        return found

    monkeypatch.setattr(rehearsals, "of_parent", retracts)
    directory = trained.order(trained.batch(ten(signal, 100)))
    assert trained_home.texts(home, b"xyzzy-secret") == [] and directory.examples.exists()

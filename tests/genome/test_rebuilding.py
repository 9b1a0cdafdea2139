"""What serves is trained again: without what was retracted since, and with all else that it had learned."""

from __future__ import annotations

import pytest
import whole_home
from fixed import NOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trained_home import DOMAIN, PERSONA, SECRET, Make, TrainedHome, retract, secret, texts, trains, whole

from daemon import orders, planner
from genome import (
    adapters,
    batches,
    curriculum,
    files,
    fsck,
    jobs,
    provenance,
    pruning,
    rebuilding,
    registry,
    retraction,
)
from genome.config import Prune
from genome.errors import Conflict, NotFound
from genome.layout import Home

EVERYTHING = pruning.DAY * 1000


def test_a_rebuild_goes_first_and_others_wait_for_it(trained: TrainedHome, signal: Make) -> None:
    """What is trained meanwhile would not be in it; afterwards they go on from the clean version."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    other = trained.batch([signal(5000 + i) for i in range(10)])
    directory = trained.order(other)
    outcome = retraction.retract(home, "the-secret", "by mistake", NOW + EVERYTHING)
    assert outcome.withdrawn == (directory.id,) and outcome.rebuild is not None
    assert [batch.id for batch in planner.unordered(home)] == [outcome.rebuild.id]
    made = trained.carry_through(outcome.rebuild)
    assert [batch.id for batch in planner.unordered(home)] == [other.id]
    again = trained.order(other)
    assert again.job().parent == made
    after = trained.train(again)
    assert retraction.unwanted(home, again, registry.stack_of(home, PERSONA)) == ""
    trained.judge(again)
    assert provenance.tainted(home, after) == () and whole(home)["retracted"] == 1


def test_a_rebuild_that_waits_is_replaced_by_one_without_the_next_signal(trained: TrainedHome, signal: Make) -> None:
    """Its job is withdrawn if it had one, and no two rebuilds wait."""
    home = trained.home
    trained.turn([signal(i) for i in range(10)])
    trained.turn(trains(signal, trained, 100))
    first = retract(home).rebuild
    assert first is not None and first.parent == "helper/git-v1.0"
    directory = trained.order(first)
    taught = provenance.versions(home)["helper/git-v1.0"].signals[0]
    outcome = retract(home, taught)
    second = outcome.rebuild
    assert second is not None and second.parent is None and outcome.withdrawn == (directory.id,)
    assert rebuilding.standing(home, PERSONA, DOMAIN) == [second] and whole(home)["retracted"] == 2
    assert {example.id for example in jobs.read_examples(trained.order(second).examples)}.isdisjoint(
        {"the-secret", taught}
    )


def test_what_a_rollback_left_behind_is_not_rebuilt(trained: TrainedHome, signal: Make) -> None:
    """Only what the served version knew comes back."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    trained.turn([signal(1000 + i) for i in range(10)])
    registry.roll_back(home, PERSONA, NOW, "test")
    last = trained.turn([signal(2000 + i) for i in range(10)])
    assert provenance.versions(home)[last].parent == "helper/git-v1.0"
    batch = retract(home).rebuild
    kept = [old.id for old in batches.archived(home, PERSONA, DOMAIN)]
    assert batch is not None and batch.rebuilds == (kept[0], kept[2])


def test_where_nothing_is_left_no_rebuild_is_queued(trained: TrainedHome, signal: Make) -> None:
    """The way back is a rollback, and the outcome has the version that still serves."""
    made = trained.turn([secret(signal)])
    outcome = retract(trained.home)
    assert outcome.rebuild is None and outcome.serving == (made,)


def test_a_clean_version_is_rebuilt_from_the_base(trained: TrainedHome, signal: Make) -> None:
    """By hand or by schedule: all its batches, and not while a job of the domain is under way."""
    home = trained.home
    with pytest.raises(NotFound, match="no archived batch"):
        orders.rebuild(home, PERSONA, DOMAIN, "test")
    trained.turn([signal(i) for i in range(10)])
    trained.turn([signal(100 + i) for i in range(10)])
    waiting = trained.order(trained.batch([signal(200 + i) for i in range(10)]))
    with pytest.raises(Conflict, match=waiting.id):
        orders.rebuild(home, PERSONA, DOMAIN, "test")
    trained.train(waiting)
    trained.judge(waiting)
    batch = orders.rebuild(home, PERSONA, DOMAIN, "test")
    assert batch.parent is None and len(batch.rebuilds) == 3
    assert orders.rebuild(home, PERSONA, DOMAIN, "again") == batch
    assert whole(home)["archived"] == 30
    trained.carry_through(batch, promote=False)
    assert whole(home)["archived"] == 30 and whole(home)["set aside"] == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_rebuild_trains_what_it_should(
    tmp_path_factory: pytest.TempPathFactory, signal: Make, data: st.DataObject
) -> None:
    """Of the archived batches after the newest clean ancestor: each signal once, but those retracted, superseded or
    held out, and no question stands on both sides."""
    made = Home(tmp_path_factory.mktemp("home") / "genome")
    made.inbox.mkdir(parents=True)
    trained, taught = TrainedHome(made), {}
    for turn in range(data.draw(st.integers(1, 4), "batches")):
        questions = data.draw(st.lists(st.integers(0, 25), min_size=3, max_size=8, unique=True), "questions")
        trained.turn([signal(number, id=f"{turn}:{number}", correctOutput=f"{turn % 2}") for number in questions])
        taught |= {f"{turn}:{number}": turn for number in questions}
    gone = data.draw(st.sets(st.sampled_from(sorted(taught)), min_size=1, max_size=4), "retracted")
    for each in sorted(gone):
        outcome = retract(made, each)
    counts = whole(made)
    assert counts["retracted"] == len(gone)
    known, taints = provenance.versions(made), provenance.taints(made)
    assert {each for each, version in known.items() if gone & set(version.signals)} <= set(taints)
    waiting = rebuilding.standing(made, PERSONA, DOMAIN)
    served = rebuilding.serving(made, PERSONA, DOMAIN)
    if served not in taints:
        assert waiting == []
        return
    lineage = provenance.chain(known, served)
    clean = next((each for each in lineage if each not in taints), None)
    first = 0 if clean is None else 1 + list(reversed(lineage)).index(clean)
    old = batches.archived(made, PERSONA, DOMAIN)
    beaten = curriculum.superseded(made, PERSONA, DOMAIN)
    lines = {each.id: each for batch in old for each in batches.signals(made, batch) if each.id not in beaten}
    graduates = {name for batch in old[first:] for name in batch.graduates} & set(lines)
    held = {name for batch in old[first:] for name in batch.held_out if name in lines} - graduates
    own = {each.id for batch in old[first:] for each in batches.signals(made, batch) if each.id in lines}
    asked = {lines[name].question for name in held}
    wanted = sorted(name for name in (own | graduates) - held if lines[name].question not in asked)
    if not wanted:
        return
    (batch,) = waiting
    assert batch.parent == clean and outcome.rebuild in (batch, None)
    assert sorted(each.id for each in curriculum.training_part(made, batch)) == wanted
    assert {each.id for each in curriculum.held_out_part(made, batch)} == held
    replayed = {each.id for each in curriculum.replay_part(made, batch, None, 0)}
    assert replayed.isdisjoint({*wanted, *gone}) and replayed <= set(taught)


@pytest.mark.parametrize("to_base", [False, True])
def test_a_rollback_to_what_is_clean_drops_the_rebuild(trained: TrainedHome, signal: Make, to_base: bool) -> None:
    """Nothing tainted is served any more, so nothing is trained again; a job that waits for it ends."""
    home = trained.home
    clean = trained.turn([signal(i) for i in range(10)]) if not to_base else None
    trained.turn(trains(signal, trained, 100))
    batch = retract(home).rebuild
    assert batch is not None and batch.parent == clean
    directory = trained.order(batch)
    registry.roll_back(home, PERSONA, NOW, "at once", clean)
    assert rebuilding.stale(home, batch)
    assert planner.unordered(home) == [] and rebuilding.standing(home, PERSONA, DOMAIN) == []
    assert jobs.find(home, directory.id).state() == "failed" and whole(home)["retracted"] == 1


def test_a_rebuild_does_not_bring_back_what_feedback_withdrew(trained: TrainedHome, signal: Make) -> None:
    """Neither its job, nor its candidate: another takes its place, which trains only what serves still knows."""
    home = trained.home
    clean = trained.turn([signal(i) for i in range(10)])
    trained.turn(trains(signal, trained, 100))
    worse = trained.turn([signal(300 + i) for i in range(10)])
    batch = retract(home).rebuild
    assert batch is not None and batch.parent == clean and len(batch.rebuilds) == 2
    directory = trained.order(batch)
    trained.train(directory)
    assert retraction.unwanted(home, directory, registry.stack_of(home, PERSONA)) == ""
    registry.withdraw(home, worse, NOW, "worse")
    batches.withdraw(home, batches.find(home, batch.rebuilds[1]), "worse")
    reason = retraction.unwanted(home, directory, registry.stack_of(home, PERSONA))
    assert batch.rebuilds[1] in reason
    with files.locked(home.lock):
        retraction.dismiss(home, directory, reason, NOW)
    (again,) = planner.unordered(home)
    assert (again.parent, again.rebuilds) == (clean, batch.rebuilds[:1]) and rebuilding.stale(home, again) == ""
    trained.carry_through(again)
    assert planner.unordered(home) == [] and retraction.served(home) == {}


def test_a_rebuild_that_was_ordered_late_is_withdrawn(trained: TrainedHome, signal: Make) -> None:
    """Whoever orders it: what feedback withdrew a moment ago is in none of the jobs that go on."""
    home = trained.home
    trained.turn(trains(signal, trained, 100))
    trained.turn([signal(300 + i) for i in range(10)])
    batch = retract(home).rebuild
    assert batch is not None
    registry.roll_back(home, PERSONA, NOW, "test")
    assert trained.order(batch).state() == "failed"
    (again,) = rebuilding.standing(home, PERSONA, DOMAIN)
    assert again.rebuilds == batch.rebuilds[:1] and trained.order(again).state() == "waiting"


def test_a_tainted_canary_is_not_rebuilt(trained: TrainedHome, signal: Make) -> None:
    """What serves everybody is clean, so nothing would be brought up; once the canary serves everybody, it is."""
    home = trained.home
    clean = trained.turn([signal(i) for i in range(10)])
    batch = trained.batch(trains(signal, trained, 100))
    directory = trained.order(batch)
    made = trained.train(directory)
    registry.promote(home, made, NOW, "better", directory.id, share=0.1)
    batches.archive(home, batch)
    jobs.complete(home, directory)
    outcome = retract(home)
    assert outcome.serving == (made,) and outcome.rebuild is None
    with files.locked(home.lock):
        retraction.settle(home, NOW)
    assert rebuilding.standing(home, PERSONA, DOMAIN) == []
    registry.graduate(home, PERSONA, NOW, "better")
    with files.locked(home.lock):
        retraction.settle(home, NOW)
        retraction.settle(home, NOW)
    (queued,) = rebuilding.standing(home, PERSONA, DOMAIN)
    assert (queued.parent, queued.rebuilds) == (clean, (batch.id,))
    trained.carry_through(queued, promote=False)
    with files.locked(home.lock):
        retraction.settle(home, NOW)
    assert rebuilding.standing(home, PERSONA, DOMAIN) == []  # the gate refused it, and would again


def imported(home: Home) -> str:
    """A version that no batch of this home made, which serves."""
    described = {"id": "helper/git-v0.9", "base_fingerprint": whole_home.BASE, "origin": "elsewhere", "created": 0}
    made = adapters.install(home, whole_home.weights(9), "base", described)
    registry.deploy(home, made.id, NOW, "test")
    return made.id


def test_what_was_imported_is_gone_on_from(trained: TrainedHome, signal: Make) -> None:
    """No batch could bring it back: training all anew begins with it and not with the base."""
    home = trained.home
    there = imported(home)
    trained.turn([signal(i) for i in range(10)])
    trained.turn([signal(100 + i) for i in range(10)])
    batch = orders.rebuild(home, PERSONA, DOMAIN, "test")
    assert batch.parent == there and len(batch.rebuilds) == 2


@pytest.mark.parametrize("tainted", [False, True])
def test_what_was_imported_and_is_gone_is_not_thrown_away(trained: TrainedHome, signal: Make, tainted: bool) -> None:
    """A rebuild is refused by name; a retraction queues none, and what serves goes on serving."""
    home = trained.home
    there = imported(home)
    last = trained.turn(trains(signal, trained, 100))
    files.make_directory(home.lineage(there).parent)
    files.write(home.lineage(there), adapters.manifest(home, there).to_bytes())
    files.remove(home.adapter(there))
    if tainted:
        outcome = retract(home)
        assert outcome.serving == (last,) and outcome.rebuild is None and texts(home, SECRET) == []
    with pytest.raises(Conflict, match=f"{there}.*imported"):
        orders.rebuild(home, PERSONA, DOMAIN, "test")
    assert batches.queued(home, PERSONA, DOMAIN) == []


def test_a_rebuild_that_would_lose_what_was_promoted_meanwhile_is_replaced(trained: TrainedHome, signal: Make) -> None:
    """The gate asks, dismisses it, and the next one has all."""
    home = trained.home
    trained.turn(trains(signal, trained, 0))
    batch = retract(home).rebuild
    assert batch is not None
    late = trained.batch([signal(5000 + i) for i in range(10)])
    last = trained.carry_through(late)
    directory = trained.order(batch)
    trained.train(directory)
    reason = retraction.unwanted(home, directory, registry.stack_of(home, PERSONA))
    assert late.id in reason and rebuilding.serving(home, PERSONA, DOMAIN) == last
    with files.locked(home.lock):
        retraction.dismiss(home, directory, reason, NOW)
    (again,) = rebuilding.standing(home, PERSONA, DOMAIN)
    assert again.id != batch.id and again.rebuilds == (*batch.rebuilds, late.id)
    assert jobs.find(home, directory.id).state() == "failed" and whole(home)["retracted"] == 1


def test_what_a_rebuild_goes_on_from_is_not_pruned(trained: TrainedHome, signal: Make) -> None:
    """However old it is, and though nothing serves it."""
    home = trained.home
    clean = trained.turn([signal(i) for i in range(10)])
    trained.turn(trains(signal, trained, 100))
    for first in (5000, 6000):
        trained.turn([signal(first + i) for i in range(10)])
    batch = retract(home).rebuild
    assert batch is not None and batch.parent == clean
    done = pruning.carry_out(home, Prune(adapters_kept=1, rollback_days=0), NOW + EVERYTHING * 9)
    assert home.adapter("helper/git-v1.1") in {act.path for act in done} and home.adapter(clean).exists()


def test_a_rebuild_goes_on_from_no_version_that_is_gone(trained: TrainedHome, signal: Make) -> None:
    """The newest clean one was pruned, so it begins with the base, and has its lessons too."""
    home = trained.home
    clean = trained.turn([signal(i) for i in range(10)])
    trained.turn(trains(signal, trained, 100))
    for first in (5000, 6000):
        trained.turn([signal(first + i) for i in range(10)])
    pruning.carry_out(home, Prune(adapters_kept=1, rollback_days=0), NOW + EVERYTHING * 9)
    batch = retract(home).rebuild
    assert not home.adapter(clean).exists()
    assert batch is not None and batch.parent is None and len(batch.rebuilds) == 4


def test_a_rebuild_of_what_is_not_archived_is_damage(trained: TrainedHome, signal: Make) -> None:
    """It could not be ordered."""
    home = trained.home
    trained.turn([signal(i) for i in range(10)])
    batch = orders.rebuild(home, PERSONA, DOMAIN, "test")
    batch.model_copy(update={"rebuilds": ("batch-2025-01-01-001",)}).write(
        home.queued(PERSONA, DOMAIN) / batch.id / "batch.json"
    )
    assert any("which is not archived" in problem.what for problem in fsck.check(home).problems)

"""From a version to its signals, and from a signal to every version that goes back to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import whole_home
from fixed import NOW
from trained_home import DOMAIN, PERSONA, TrainedHome

from genome import adapters, batches, files, fsck, provenance, pruning, registry, retraction
from genome.buffer import Buffer
from genome.config import Intake, Prune
from genome.errors import Conflict, InvalidInput, NotFound
from genome.layout import Home
from genome.lines import from_signal
from genome.promotions import StackEntry

Make = Callable[..., Any]


def test_a_version_leads_to_its_signals(trained: TrainedHome, signal: Make) -> None:
    """All it was trained on itself, replayed ones included, and where each lies now; its parents, batch and verdict."""
    home = trained.home
    first = trained.turn([signal(i, id=f"first-{i:04d}") for i in range(20)])
    second = trained.turn([signal(100 + i, id=f"second-{i:04d}") for i in range(20)])
    found = provenance.of_adapter(home, second)
    assert found.parents == (first,) and found.verdict is not None and found.verdict.promote
    one, two = batches.archived(home, PERSONA, DOMAIN)
    assert found.manifest.batch == two.id
    new = {each for each, _ in found.signals if each.startswith("second")}
    replayed = {each for each, _ in found.signals if each.startswith("first")}
    assert (
        len(new) == 14
        and new.isdisjoint(two.held_out)
        and replayed
        and replayed.isdisjoint({*one.held_out} - {*two.graduates})
    )
    for each, place in found.signals:
        assert place is not None and place.id == each and place.state == "archived"
        assert place.path.read_bytes().splitlines()[place.line - 1].count(each.encode()) == 1
    assert found.tainted == ()


def test_a_signal_leads_to_its_versions(trained: TrainedHome, signal: Make) -> None:
    """Those trained on it, those that replayed it, those that descend from them, and which of these serve."""
    home = trained.home
    first = trained.turn([signal(i) for i in range(10)])
    second = trained.turn([signal(100 + i, id=f"signal-{i:05d}") for i in range(10)])
    third = trained.turn([signal(200 + i) for i in range(5)])
    batch = batches.archived(home, PERSONA, DOMAIN)[1]
    replayed = set(provenance.versions(home)[third].signals)
    wanted = next(f"signal-{i:05d}" for i in range(10) if f"signal-{i:05d}" not in {*batch.held_out, *replayed})
    found = provenance.of_signal(home, wanted)
    assert (found.place.state, found.place.batch, found.held_out) == ("archived", batch, False)
    assert found.trained == (second,) and found.descendants == (third,) and found.serving == (third,)
    assert found.jobs == (provenance.versions(home)[second].job,) and first not in found.trained
    held_out = provenance.of_signal(home, batches.archived(home, PERSONA, DOMAIN)[2].held_out[0])
    assert held_out.held_out and held_out.trained == () and held_out.jobs == ()


def test_every_state_is_told(home: Home, trained: TrainedHome, signal: Make) -> None:
    """A signal is in one of them, and its batch is named with it."""
    evidence = {"type": "mistake", "correctOutput": None}
    trained.turn([*(signal(i) for i in range(9)), signal(50, id="archived-1")])
    trained.turn([*(signal(200 + i) for i in range(9)), signal(60, id="set-aside")], promote=False)
    queued = trained.batch([
        *(signal(300 + i) for i in range(9)), signal(70, id="queued-01"),
        signal(71, id="superseded", timestamp=1), signal(71, id="superseding", correctOutput="b"),
    ])  # fmt: skip
    trained.accept([signal(80, id="pending-1"), signal(81, id="evidence-1", **evidence), signal(82, id="retracted")])
    retraction.retract(home, "retracted", "test", NOW)
    states = {each: provenance.of_signal(home, each).place for each in (
        "archived-1", "set-aside", "queued-01", "superseded", "pending-1", "evidence-1", "retracted")}  # fmt: skip
    assert {each: place.state for each, place in states.items()} == {
        "archived-1": "archived", "set-aside": "set aside", "queued-01": "queued", "superseded": "superseded",
        "pending-1": "pending", "evidence-1": "evidence", "retracted": "retracted"}  # fmt: skip
    assert states["superseded"].batch == queued and states["pending-1"].batch is None
    told = provenance.of_signal(home, "retracted").retraction
    assert told is not None and told.reason == "test"


def test_an_id_counts_within_its_domain(home: Home, signal: Make) -> None:
    """An ambiguous one lists the places, and persona or domain decide."""
    into = Buffer(home, Intake())
    into.accept([from_signal(signal(1, id="same-id", domain=domain)) for domain in ("git", "sql")], NOW)
    with pytest.raises(Conflict, match=r"helper/git same-id, helper/sql same-id.*--persona and --domain"):
        provenance.of_signal(home, "same-id")
    assert provenance.of_signal(home, "same-id", domain="sql").place.domain == "sql"
    outcome = retraction.retract(home, "same-id", "test", NOW, ("", "git"))
    assert outcome.retraction.domain == "git"
    assert provenance.of_signal(home, "same-id", domain="sql").place.state == "pending"
    assert provenance.of_signal(home, "same-id", domain="git").place.state == "retracted"


def test_the_beginning_of_an_id_will_do(home: Home, signal: Make) -> None:
    """From eight characters on, where one signal begins so; a whole id is never taken for a beginning."""
    into = Buffer(home, Intake())
    ids = ("abcdefgh1", "abcdefgh2", "12345678", "123456789")
    into.accept([from_signal(signal(i, id=each)) for i, each in enumerate(ids)], NOW)
    assert provenance.of_signal(home, "12345678").place.id == "12345678"
    with pytest.raises(Conflict, match="2 signals"):
        provenance.of_signal(home, "abcdefgh")
    with pytest.raises(NotFound, match="at least 8"):
        provenance.of_signal(home, "abcdef")
    with pytest.raises(InvalidInput):
        provenance.of_signal(home, "")


def test_what_was_pruned_is_still_known(trained: TrainedHome, signal: Make) -> None:
    """Its manifest stays: blame works for it, and its descendants go back to it."""
    home = trained.home
    first = trained.turn([signal(i, id=f"signal-{i:05d}") for i in range(10)])
    for start in (100, 200, 300):
        last = trained.turn([signal(start + i) for i in range(10)])
    pruning.carry_out(home, Prune(adapters_kept=1, rollback_days=0), NOW + 1e9)
    assert not home.adapter(first).exists() and str(first) not in map(str, adapters.list_ids(home))
    found = provenance.of_adapter(home, first)
    assert len(found.signals) == 7 and all(place is not None for _, place in found.signals)
    assert provenance.of_adapter(home, last).parents[-1] == first
    assert last in provenance.of_signal(home, found.signals[0][0]).descendants
    assert fsck.check(home).problems == ()
    home.lineage(first).write_bytes(b"{")
    assert any("read as manifest" in problem.what for problem in fsck.check(home).problems)


def test_what_a_version_adds_is_what_counts_against_it(trained: TrainedHome, signal: Make) -> None:
    """A descendant of a tainted version that serves is not worse than that; one trained on the signal itself is."""
    home = trained.home
    first = trained.turn([signal(i) for i in range(10)])
    retracted = provenance.versions(home)[first].signals[0]
    retraction.retract(home, retracted, "test", NOW)
    second = {"id": "helper/git-v1.7", "base_fingerprint": whole_home.BASE, "parent": first, "created": 0}
    adapters.install(home, whole_home.weights(7), "base", second)
    stack = registry.stack_of(home, PERSONA)
    assert provenance.tainted(home, "helper/git-v1.7") == (retracted,)
    assert provenance.newly_tainted(home, "helper/git-v1.7", stack) == ()
    assert provenance.newly_tainted(home, "helper/git-v1.7", ()) == (retracted,)


def test_a_canary_serves_what_it_builds_on_too(trained: TrainedHome, signal: Make) -> None:
    """Both its own stack and the one the other sessions get."""
    home = trained.home
    first = trained.turn([signal(i) for i in range(10)])
    second = trained.turn([signal(100 + i) for i in range(10)])
    newest = registry.current(home, PERSONA)
    assert newest is not None and provenance.serving(home) == {second}
    entry = StackEntry(adapter=second, digest=adapters.manifest(home, second).digest)
    made = newest.model_copy(update={"number": 3, "kind": "canary", "share": 0.1, "stack": (entry,), "builds_on": 1})
    files.create(home.promotions(PERSONA) / "000003.json", made.to_bytes())
    assert provenance.serving(home) == {first, second}

"""Promise 7: what went live can go back. One numbered record an act; the newest says what should be served."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fixed import NOW

from genome import adapters, lora, registry
from genome.adapters import AdapterId
from genome.errors import Conflict, InvalidAdapter, NotFound
from genome.layout import Home
from genome.lora import Factors, Lora
from genome.tensors import Tensor

BASE = "f" * 64
Install = Callable[..., str]


def weights(seed: int = 0, rank: int = 2) -> Lora:
    """A small adapter of one module."""
    generator = np.random.default_rng(seed)
    a, b = (generator.normal(size=shape).astype(np.float32) for shape in ((rank, 4), (6, rank)))
    factors = Factors(Tensor("F32", a.shape, a.tobytes()), Tensor("F32", b.shape, b.tobytes()), 2.0)
    return Lora({"model.layers.0.self_attn.q_proj": factors}, "")


@pytest.fixture
def install(home: Home) -> Install:
    """Puts an adapter in place and returns its id."""

    def put(adapter_id: str = "", job: str | None = None) -> str:
        name = adapter_id or str(adapters.next_id(home, "helper", "git"))
        described = {"id": name, "base_fingerprint": BASE, "job": job, "created": 0}
        return adapters.install(home, weights(len(adapters.list_ids(home))), "base", described).id

    return put


def served(home: Home) -> list[str]:
    return [entry.adapter for entry in registry.stack_of(home, "helper")]


def test_versions_count_up_whether_they_served_or_not(install: Install) -> None:
    """The first is 1.0; a refused candidate's number is not given again."""
    assert [install(), install(), install()] == ["helper/git-v1.0", "helper/git-v1.1", "helper/git-v1.2"]


def test_version_ten_comes_after_nine(home: Home, install: Install) -> None:
    """Versions are numbers, not text."""
    install("helper/git-v1.9")
    assert install() == "helper/git-v1.10"
    assert str(adapters.next_id(home, "helper", "git")) == "helper/git-v1.11"


def test_rollback_returns_to_what_was_served_before(home: Home, install: Install) -> None:
    """Step by step down to the base, and by deploy forward again."""
    for job in ("job-1", "job-2"):
        registry.promote(home, install(job=job), NOW, "better", job)
    assert served(home) == ["helper/git-v1.1"]
    registry.roll_back(home, "helper", NOW, "worse")
    assert served(home) == ["helper/git-v1.0"]
    registry.roll_back(home, "helper", NOW, "worse still")
    assert served(home) == []
    with pytest.raises(Conflict, match="base alone"):
        registry.roll_back(home, "helper", NOW, "again")
    registry.deploy(home, "helper/git-v1.1", NOW, "after all")
    assert served(home) == ["helper/git-v1.1"]
    assert [made.kind for made in registry.history(home, "helper")] == [
        "promote", "promote", "rollback", "rollback", "deploy"
    ]  # fmt: skip


def test_promoting_a_job_twice_makes_one_record(home: Home, install: Install) -> None:
    """A gate that crashed after promoting does it again without harm, even after a rollback in between."""
    candidate = install(job="job-1")
    first = registry.promote(home, candidate, NOW, "better", "job-1")
    registry.roll_back(home, "helper", NOW, "worse")
    assert registry.promote(home, candidate, NOW, "better", "job-1") == first
    assert served(home) == []


def test_a_new_version_takes_its_domains_place_in_the_stack(home: Home, install: Install) -> None:
    """Other domains stay; routes are the whole stack, and each domain's own."""
    for name in ("helper/git-v1.0", "helper/soup-v1.0", "helper/git-v1.1"):
        install(name)
        registry.deploy(home, name, NOW, "by hand")
    assert served(home) == ["helper/git-v1.1", "helper/soup-v1.0"]
    promotion = registry.current(home, "helper")
    assert promotion is not None
    routes = {
        name: [entry.adapter for variant in variants for entry in variant.stack]
        for name, variants in registry.routes(home, promotion).items()
    }
    assert routes == {
        "helper": ["helper/git-v1.1", "helper/soup-v1.0"],
        "helper/git": ["helper/git-v1.1"],
        "helper/soup": ["helper/soup-v1.0"],
    }


def test_what_does_not_exist_is_named_with_what_does(home: Home, install: Install) -> None:
    """An unknown id lists the known ones."""
    install()
    with pytest.raises(NotFound, match=r"helper/git-v1\.0"):
        registry.deploy(home, "helper/git-v9.9", NOW, "by hand")


def test_an_adapter_of_another_base_is_refused(home: Home, install: Install) -> None:
    """And the sentence says which base it was made for."""
    with pytest.raises(InvalidAdapter, match="another base"):
        adapters.verify(home, install(), "0" * 64)


def test_a_changed_adapter_is_refused(home: Home, install: Install) -> None:
    """The manifest's digest is held against the file."""
    name = install()
    other = home.root / "other"
    other.mkdir()
    lora.write_peft(other, weights(99), "base")
    (home.adapter(name) / lora.PEFT_WEIGHTS).write_bytes((other / lora.PEFT_WEIGHTS).read_bytes())
    with pytest.raises(InvalidAdapter, match="changed since"):
        adapters.verify(home, name, BASE)


def test_an_adapter_reads_back_as_it_was_written(home: Home, install: Install) -> None:
    """PEFT's format keeps every factor and its scaling."""
    written, found = weights(0), lora.read(home.adapter(install()))
    assert {name: (f.a[:3], f.b[:3], f.scaling) for name, f in found.modules.items()} == {
        name: (f.a[:3], f.b[:3], f.scaling) for name, f in written.modules.items()
    }


def test_an_id_is_checked() -> None:
    """Ids cannot lead out of the adapters' directory."""
    for bad in ("helper/git", "../x/git-v1.0", "helper/git-v1", "helper/../git-v1.0", "inbox/git-v1.0"):
        with pytest.raises(Exception, match=r"id|name"):
            AdapterId.parse(bad)


def routed(home: Home) -> dict[str, list[tuple[str, float]]]:
    """By route: each variant's adapters, and its weight."""
    promotion = registry.current(home, "helper")
    assert promotion is not None
    return {
        name: [(",".join(entry.adapter for entry in variant.stack), variant.weight) for variant in variants]
        for name, variants in registry.routes(home, promotion).items()
    }


def promoted(home: Home, install: Install, *names: str) -> None:
    for number, name in enumerate(names):
        job = f"job-{name}-{number}"
        registry.promote(home, install(name, job), NOW, "better", job)


def test_a_canary_gets_a_share_and_the_others_keep_what_they_had(home: Home, install: Install) -> None:
    """Only routes whose stack differs have two variants; a new domain's others get their persona's stack."""
    promoted(home, install, "helper/git-v1.0")
    registry.promote(home, install("helper/soup-v1.0"), NOW, "better", "job-2", {"learned": 0.25}, share=0.1)
    both = "helper/git-v1.0,helper/soup-v1.0"
    assert routed(home) == {
        "helper": [(both, 0.1), ("helper/git-v1.0", 0.9)],
        "helper/git": [("helper/git-v1.0", 1.0)],
        "helper/soup": [("helper/soup-v1.0", 0.1), ("helper/git-v1.0", 0.9)],
    }
    assert served(home) == ["helper/git-v1.0"], "what the next candidate is held against"
    record = registry.canary(home, "helper")
    assert record is not None and (record.kind, record.by, record.numbers) == ("canary", "gate", {"learned": 0.25})
    assert set(registry.served(home, record)) == {"helper/git-v1.0", "helper/soup-v1.0"}


def test_a_canary_graduates_or_goes_back(home: Home, install: Install) -> None:
    """To everybody with the same way back, or back to what the others had all along."""
    promoted(home, install, "helper/git-v1.0")
    for number, ends in enumerate((registry.graduate, registry.roll_back), 1):
        registry.promote(home, install(), NOW, "better", f"job-{number}", share=0.2)
        ends(home, "helper", NOW, "seen enough")
        assert registry.canary(home, "helper") is None
        assert served(home) == ["helper/git-v1.1"]
    registry.roll_back(home, "helper", NOW, "after all")
    assert served(home) == ["helper/git-v1.0"]


def test_two_canaries_are_never_under_way_at_once(home: Home, install: Install) -> None:
    """Their effects could not be told apart: the second waits, and is the same record when it was made before."""
    first = registry.promote(home, install(), NOW, "better", "job-1", share=0.5)
    with pytest.raises(Conflict, match="canary and not settled"):
        registry.promote(home, install(), NOW, "better", "job-2")
    assert registry.promote(home, "helper/git-v1.0", NOW, "better", "job-1", share=0.5) == first
    registry.deploy(home, "helper/git-v1.0", NOW, "good enough", "ann@desk")
    assert registry.canary(home, "helper") is None and served(home) == ["helper/git-v1.0"]


def test_what_is_withdrawn_goes_alone(home: Home, install: Install) -> None:
    """The domain's predecessor serves again; other domains stay, and going on back passes the withdrawn one over."""
    promoted(home, install, "helper/git-v1.0", "helper/git-v1.1", "helper/soup-v1.0")
    made = registry.withdraw(home, "helper/git-v1.1", NOW, "worse by 9 points", {"wealth": 120.0})
    assert (made.kind, made.by, made.quarantined) == ("rollback", "feedback", ("helper/git-v1.1",))
    assert served(home) == ["helper/git-v1.0", "helper/soup-v1.0"]
    registry.roll_back(home, "helper", NOW, "soup too")
    assert served(home) == ["helper/git-v1.0"]
    registry.roll_back(home, "helper", NOW, "all of it")
    assert served(home) == []


def test_the_way_back_passes_over_what_was_withdrawn(home: Home, install: Install) -> None:
    """Also where the withdrawn version stands further down: it had served before its successor did."""
    promoted(home, install, "helper/git-v1.0", "helper/git-v1.1")
    registry.deploy(home, "helper/git-v1.0", NOW, "the old one again")
    registry.withdraw(home, "helper/git-v1.0", NOW, "worse")
    assert served(home) == ["helper/git-v1.1"]
    registry.roll_back(home, "helper", NOW, "worse too")
    assert served(home) == []


def test_another_domains_canary_outlives_a_withdrawal(home: Home, install: Install) -> None:
    """The version that went is gone from both variants; the canary goes on with its share."""
    promoted(home, install, "helper/git-v1.0", "helper/git-v1.1")
    registry.promote(home, install("helper/soup-v1.0"), NOW, "better", "job-2", share=0.25)
    registry.withdraw(home, "helper/git-v1.1", NOW, "worse")
    assert routed(home)["helper"] == [("helper/git-v1.0,helper/soup-v1.0", 0.25), ("helper/git-v1.0", 0.75)]
    registry.roll_back(home, "helper", NOW, "soup too")
    assert served(home) == ["helper/git-v1.0"]


def test_a_withdrawn_version_serves_again_by_force_alone(home: Home, install: Install) -> None:
    """The refusal says why it was withdrawn; deployed by force it counts as good again."""
    promoted(home, install, "helper/git-v1.0", "helper/git-v1.1")
    registry.withdraw(home, "helper/git-v1.1", NOW, "worse by 9 points")
    with pytest.raises(Conflict, match=r"worse by 9 points.*--force"):
        registry.deploy(home, "helper/git-v1.1", NOW, "please")
    with pytest.raises(Conflict, match="withdrawn"):
        registry.roll_back(home, "helper", NOW, "please", to="helper/git-v1.1")
    registry.deploy(home, "helper/git-v1.1", NOW, "I know better", "ann@desk", force=True)
    registry.deploy(home, "helper/git-v1.0", NOW, "or not", "ann@desk")
    registry.roll_back(home, "helper", NOW, "yes I do")
    assert served(home) == ["helper/git-v1.1"]


def test_a_pinned_persona_changes_by_hand_alone(home: Home, install: Install) -> None:
    """Neither the gate nor feedback may act; a person may, and it stays pinned until it is unpinned."""
    promoted(home, install, "helper/git-v1.0", "helper/git-v1.1")
    registry.pin(home, "helper", NOW, "exam week", "ann@desk")
    for act in (
        lambda: registry.promote(home, install(), NOW, "better", "job-9"),
        lambda: registry.withdraw(home, "helper/git-v1.1", NOW, "worse"),
    ):
        with pytest.raises(Conflict, match="pinned"):
            act()
    registry.roll_back(home, "helper", NOW, "by hand", by="ann@desk")
    assert served(home) == ["helper/git-v1.0"] and registry.pinned(home, "helper")
    registry.pin(home, "helper", NOW, "over", "ann@desk", on=False)
    assert served(home) == ["helper/git-v1.0"] and not registry.pinned(home, "helper")
    registry.roll_back(home, "helper", NOW, "worse")
    assert served(home) == []

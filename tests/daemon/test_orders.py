"""What a job is ordered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import whole_home
from fixed import NOW
from trained_home import CONFIG, TrainedHome

from daemon import footprints, orders
from genome import jobs, registry
from genome.config import Config
from genome.errors import InvalidAdapter
from genome.layout import Home
from genome.training import Beside

Make = Callable[..., Any]


@pytest.fixture
def trained(home: Home) -> TrainedHome:
    return TrainedHome(home)


def test_a_domain_is_trained_with_what_serves_the_others_beside_it(
    trained: TrainedHome, home: Home, signal: Make
) -> None:
    """In both its first turn and the next, which replaces what served the domain itself."""
    git = trained.turn([signal(i) for i in range(20)])
    trained.domain = "svn"
    beside = (Beside(adapter=git, path=str(home.adapter(git)), scale=1.0),)
    for turn in (1, 2):
        ordered = trained.order(trained.batch([signal(100 * turn + i, domain="svn") for i in range(20)]))
        assert ordered.job().beside == beside
        trained.train(ordered)
        trained.judge(ordered)


def test_a_base_that_is_read_in_fewer_bits_is_said_to_be(
    trained: TrainedHome, signal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsloth does with bitsandbytes and a GPU; the base itself, and what serves, stay as they are."""
    monkeypatch.setattr(footprints, "packs", lambda _trainer: True)
    job = trained.order(trained.batch([signal(i) for i in range(20)])).job()
    assert job.trained_on is not None and job.trained_on.fingerprint == job.base_fingerprint
    assert str(job.trained_on.quantisation) == "4-bit bitsandbytes nf4"


def test_a_wrong_answer_reaches_the_trainer(trained: TrainedHome, signal: Make) -> None:
    """Where it can be told from the right one."""
    wrong = {number: f"wrong {number}" for number in range(20)} | {0: "answer 0 ", 1: " "}
    ordered = trained.order(trained.batch([signal(i, wrongOutput=text) for i, text in wrong.items()]))
    examples = jobs.read_examples(ordered.examples)
    found = {int((each.messages or [])[0]["content"].split()[-1]): each.rejected for each in examples}
    assert len(found) > 2
    assert found == {number: None if number < 2 else wrong[number] for number in found}


@pytest.mark.parametrize("domain", ["git", "svn"], ids=["gone on from", "beside"])
def test_what_was_made_for_another_base_is_no_part_of_a_job(
    trained: TrainedHome, home: Home, signal: Make, domain: str
) -> None:
    """Neither gone on from nor applied beside: where shapes agree a trainer would not notice, and its adapter would be
    said to be one of the new base. The message names both, and what to do."""
    git = trained.turn([signal(i) for i in range(20)])
    trained.domain = domain
    batch = trained.batch([signal(100 + i, domain=domain) for i in range(20)])
    said = rf"{git} was made for another base.*{whole_home.BASE[:12]}.*eeeeeeeeeeee.*genome adapter rollback"
    with pytest.raises(InvalidAdapter, match=said):
        orders.order(home, CONFIG, batch, Path("other"), "e" * 64)
    assert jobs.active(home) == []
    registry.roll_back(home, "helper", NOW, "another base")
    fresh = orders.order(home, CONFIG, batch, Path("other"), "e" * 64)
    assert (fresh.needs, fresh.base_fingerprint) == ((), "e" * 64)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_as_much_is_replayed_as_the_config_says(trained: TrainedHome, home: Home, signal: Make, ratio: float) -> None:
    """Of what the first batch taught, training.replay_fraction × the signals that are new to the second."""
    config = Config.model_validate(CONFIG.model_dump() | {
        "training": CONFIG.training.model_dump() | {"replay_fraction": ratio},
        "gate": CONFIG.gate.model_dump() | {"recall_examples": 0},
    })  # fmt: skip
    first = trained.order(trained.batch([signal(i) for i in range(200)]))
    taught = {each.id for each in jobs.read_examples(first.examples)}
    trained.train(first)
    trained.judge(first)
    second = orders.order(home, config, trained.batch([signal(1000 + i) for i in range(60)]), Path("base"), "f" * 64)
    ordered = {each.id for each in jobs.read_examples(jobs.find(home, second.id).examples) if not each.anchor}
    assert len(ordered - taught) == 102  # of its 60 it is judged by 18, and the 60 that judged the first are new
    assert len(ordered & taught) == int(102 * ratio)

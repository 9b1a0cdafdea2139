"""Promises of the routing table: it is never changed, falls back as said, and keeps sessions together."""

from __future__ import annotations

import pytest

from genome.errors import InvalidInput
from inference_worker.routes import Entry, StaleGeneration, Table, Variant, check, check_stack

OLD, NEW, OTHER = "ann/code-v1.0", "ann/code-v1.1", "ann/mail-v1.0"


def one(*adapters: str, weight: float = 1.0) -> tuple[Variant, ...]:
    return (Variant(tuple(map(Entry, adapters)), weight),)


TABLE = Table().with_routes({"ann": one(OLD, OTHER), "ann/code": one(OLD)})


@pytest.mark.parametrize(
    ("name", "route", "stack"),
    [
        ("ann/code", "ann/code", (Entry(OLD),)),
        ("ann/unknown", "ann", (Entry(OLD), Entry(OTHER))),
        ("ann", "ann", (Entry(OLD), Entry(OTHER))),
        ("bob/code", "", ()),
        ("", "", ()),
    ],
)
def test_a_missing_route_falls_back_to_its_persona_then_to_the_base(
    name: str, route: str, stack: tuple[Entry, ...]
) -> None:
    """Every name is answered by something, and the answer says by what."""
    assert TABLE.resolve(name) == (route, stack)


def test_a_replacement_takes_every_place_at_once_and_keeps_scales() -> None:
    """The new adapter stands where the old one stood, in a table one generation on; the old table is as it was."""
    before = TABLE.with_routes({"ann": (Variant((Entry(OLD, 0.5), Entry(OTHER))),)})
    after = before.replacing(OLD, NEW)
    assert after.resolve("ann") == ("ann", (Entry(NEW, 0.5), Entry(OTHER)))
    assert after.resolve("ann/code") == ("ann/code", (Entry(NEW),))
    assert after.generation == before.generation + 1
    assert before.naming(NEW) == []


def test_nothing_changed_is_no_new_generation() -> None:
    """Equal tables have one generation, so a repeated call is seen to be one."""
    assert TABLE.with_routes({"ann/code": one(OLD)}) is TABLE
    assert TABLE.replacing("ann/none-v1.0", NEW) is TABLE
    assert TABLE.joined(OLD) is TABLE


def test_a_route_set_to_nothing_goes_away() -> None:
    """Without variants a route ends, and its requests fall back."""
    after = TABLE.with_routes({"ann/code": ()})
    assert after.resolve("ann/code") == ("ann", (Entry(OLD), Entry(OTHER)))


def test_an_adapter_joins_the_route_its_id_names() -> None:
    """The route is made if missing, and nothing that is there is displaced."""
    assert Table().joined(NEW).resolve("ann/code") == ("ann/code", (Entry(NEW),))
    assert TABLE.joined(NEW).resolve("ann/code") == ("ann/code", (Entry(OLD), Entry(NEW)))


def test_a_session_stays_on_its_variant_and_sessions_spread_by_weight() -> None:
    """A canary of a tenth sees about a tenth of the sessions, always the same ones."""
    table = Table().with_routes({"ann": one(OLD, weight=0.9) + one(NEW, weight=0.1)})
    chosen = [table.resolve("ann", f"session-{number}")[1] for number in range(2000)]
    assert chosen == [table.resolve("ann", f"session-{number}")[1] for number in range(2000)]
    assert chosen.count((Entry(NEW),)) / 2000 == pytest.approx(0.1, abs=0.03)


def test_without_a_session_requests_are_spread() -> None:
    """The draw decides, in the order and by the weights of the variants."""
    table = Table().with_routes({"ann": one(OLD, weight=3) + one(NEW, weight=1)})
    assert table.resolve("ann", draw=lambda: 0.74)[1] == (Entry(OLD),)
    assert table.resolve("ann", draw=lambda: 0.76)[1] == (Entry(NEW),)


def test_an_outdated_generation_is_refused() -> None:
    """Who decided on another table is told so."""
    TABLE.expect(TABLE.generation)
    TABLE.expect(None)
    with pytest.raises(StaleGeneration):
        TABLE.expect(TABLE.generation - 1)


def test_a_route_that_cannot_be_is_refused() -> None:
    """Bad names, weights and stacks are refused before anything changes."""
    for name, variants in [
        ("Ann", one(OLD)),
        ("ann/", one(OLD)),
        ("ann", one(OLD, weight=-1)),
        ("ann", one(OLD, OLD)),
        ("ann", one("no-id")),
    ]:
        with pytest.raises(InvalidInput):
            check(name, variants)
    with pytest.raises(InvalidInput):
        check_stack((Entry(OLD, float("inf")),))

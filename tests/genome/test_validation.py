"""Which signals of a batch are only measured by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genome import validation
from genome.signals import Defaults, Signal, from_object


def signals(signal: Callable[..., Any], count: int, **more: Any) -> list[Signal]:
    return [from_object(signal(i, **more).to_json(), Defaults(0)) for i in range(count)]


def test_the_share_is_the_same_at_every_look(signal: Callable[..., Any]) -> None:
    """In whatever order the signals come; another batch has another share of about the same size."""
    known = signals(signal, 400)
    found = validation.chosen(known, 0.1, "batch-2025-11-20-001")
    assert len(found) == 40
    assert validation.chosen(known[::-1], 0.1, "batch-2025-11-20-001") == found
    other = validation.chosen(known, 0.1, "batch-2025-11-20-002")
    assert len(other) == 40 and other != found


def test_a_question_is_on_one_side_alone(signal: Callable[..., Any]) -> None:
    """Whoever answered it: a model that was taught the answer would be measured by it."""
    known = signals(signal, 200)
    again = [each.model_copy(update={"id": f"{each.id}-again"}) for each in known]
    found = validation.chosen([*known, *again], 0.2, "batch")
    assert found == {name for each in known if each.id in found for name in (each.id, f"{each.id}-again")}


def test_a_small_batch_loses_nothing(signal: Callable[..., Any]) -> None:
    """A share of fewer than 16 signals is noise; none is taken, nor where nothing is asked for."""
    assert validation.chosen(signals(signal, 159), 0.1, "batch") == frozenset()
    assert len(validation.chosen(signals(signal, 160), 0.1, "batch")) == validation.FEWEST
    assert validation.chosen(signals(signal, 1000), 0.0, "batch") == frozenset()

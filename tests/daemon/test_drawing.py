"""A curve in a terminal."""

from __future__ import annotations

import pytest

from daemon.cli import drawing


def test_a_falling_curve_falls() -> None:
    """The first value is the highest column, the last the lowest; both are named at the left."""
    assert drawing.curve([3.0, 2.0, 1.0], 80, 2) == ["3.000 ┤█▁", "1.000 ┤██▁"]


@pytest.mark.parametrize("count", [1, 79, 80, 10_000])
def test_it_never_is_wider_than_the_terminal(count: int) -> None:
    """Thousands of steps share columns; few have a column each."""
    lines = drawing.curve([1.0 + i % 7 for i in range(count)], 80, 6)
    assert len(lines) == 6 and max(map(len, lines)) <= 80


def test_a_flat_curve_and_none() -> None:
    """Nothing to draw is nothing, and equal values divide by nothing."""
    assert drawing.curve([], 80, 6) == []
    assert drawing.curve([2.0, 2.0], 80, 1) == ["2.000 ┤▁▁"]

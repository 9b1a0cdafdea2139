"""What an answer is worth: each measure says what it promises, and only numbers from 0 to 1."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genome import measures
from genome.errors import InvalidConfig

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("measure", "answer", "expected", "value"),
    [
        ("exact_match", " git undo\n", "git undo", 1.0),
        ("exact_match", "git  undo", "git undo", 0.0),
        ("json_valid", '{"a": 1', "", 0.0),
        ("json_valid", "null", "", 1.0),
        ("json_equal", '{"b": [1, 2], "a": 1.0}', '{"a": 1, "b": [1, 2]}', 1.0),
        ("json_equal", "[2, 1]", "[1, 2]", 0.0),
        ("json_equal", "true", "1", 0.0),
        ("json_equal", "not JSON", "not JSON", 0.0),
        ("regex", "it is 12:30", r"^\d\d:\d\d$", 0.0),
        ("regex", "12:30", r"^\d\d:\d\d$", 1.0),
    ],
)
def test_a_measure_says_what_it_promises(measure: str, answer: str, expected: str, value: float) -> None:
    """By its name in a golden line."""
    assert measures.find(measure)(answer, expected) == value


@given(JSON)
def test_json_is_equal_to_itself_however_it_is_written(value: Any) -> None:
    """White space and the order of keys do not count."""
    import json

    spread, packed = json.dumps(value, indent=2), json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert measures.json_equal(spread, packed) == 1.0 == measures.json_valid(spread, "")


def test_another_packages_scorer_is_found_and_held_to_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point in genome.measures; a number outside 0 to 1 is refused, as is a name nobody has."""
    mine = EntryPoint("length", "test_measures:length", "genome.measures")
    monkeypatch.setattr(measures, "entry_points", lambda group: [mine] if group == "genome.measures" else [])
    assert measures.find("length")("four", "four") == 1.0
    with pytest.raises(InvalidConfig, match=r"gave 2\.0"):
        measures.find("length")("twofold", "two")
    with pytest.raises(InvalidConfig, match=r"no measure 'taste'.*length"):
        measures.find("taste")


def length(answer: str, expected: str) -> float:
    return float(len(answer) // len(expected))

"""Measures of an answer in words: exact match, JSON, a pattern, or a scorer another package adds.

Each takes the answer and what the question says of the right one, and gives a number in [0, 1]. A scorer of one's own
is an entry point in the group ``genome.measures``: a callable (answer, expected) → float.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from genome.errors import InvalidConfig

Measure = Callable[[str, str], float]
SCORED = ("token_accuracy", "likelihood")
"""Need no generated answer: they are read off the scores of the expected one."""
JUDGE = "judge"
"""Asks the endpoint of [endpoint]; the daemon has the client."""


def exact_match(answer: str, expected: str) -> float:
    """But for white space around it."""
    return float(answer.strip() == expected.strip())


def json_valid(answer: str, _expected: str) -> float:
    """Whether it is JSON, whatever it says."""
    return float(_json(answer) is not _NOT_JSON)


def json_equal(answer: str, expected: str) -> float:
    """Whether it is the same JSON value; order of keys and white space do not count."""
    found = _json(answer)
    return float(found is not _NOT_JSON and _same(found, _json(expected)))


def regex(answer: str, pattern: str) -> float:
    """Whether the pattern is found in it."""
    return float(re.search(pattern, answer) is not None)


TABLE: dict[str, Measure] = {
    "exact_match": exact_match,
    "json_valid": json_valid,
    "json_equal": json_equal,
    "regex": regex,
}


def find(name: str) -> Measure:
    """A measure of an answer by its name. Raises InvalidConfig if there is none."""
    if name in TABLE:
        return TABLE[name]
    for found in entry_points(group="genome.measures"):
        if found.name == name:
            return _within(found.load(), name)
    known = ", ".join((*SCORED, *TABLE, JUDGE, *(found.name for found in entry_points(group="genome.measures"))))
    raise InvalidConfig(
        f"there is no measure {name!r}", f"Known are {known}; others are entry points of genome.measures"
    )


def _within(scorer: Measure, name: str) -> Measure:
    def measure(answer: str, expected: str) -> float:
        value = float(scorer(answer, expected))
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise InvalidConfig(f"the measure {name!r} gave {value}", "A measure is a number from 0 to 1")
        return value

    return measure


def _same(one: Any, other: Any) -> bool:
    """Python holds true and 1 for equal; JSON does not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


_NOT_JSON = object()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _NOT_JSON

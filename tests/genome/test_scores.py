"""Held against the best there was: which version that is, and on which questions."""

from __future__ import annotations

from genome import scores
from genome.scores import BASE, Observed, Scores


def seen(adapter: str, after: dict[str, float], before: dict[str, float] | None = None, *incumbent: str) -> Scores:
    """A version's scores on one set, of ten tokens a question."""

    def observed(values: dict[str, float]) -> dict[str, dict[str, Observed]]:
        return {"anchors": {key: (value, 10.0) for key, value in values.items()}}

    return Scores(adapter=adapter, incumbent=incumbent, before=observed(before or {}), after=observed(after))


NOW = {"a": (8.0, 10.0), "b": (8.0, 10.0)}


def test_the_best_is_whoever_knew_most_of_what_is_asked_now() -> None:
    """Also the base alone, and also one that was best on a question that is not asked any more."""
    known = [seen("p/d-v1.0", {"a": 9.0, "b": 9.0}, {"a": 10.0, "b": 9.0}), seen("p/d-v1.1", {"a": 7.0, "x": 10.0})]
    best = scores.best(known, "anchors", NOW)
    assert best is not None and best.adapter == BASE and best.observed == {"a": (10.0, 10.0), "b": (9.0, 10.0)}


def test_where_the_incumbent_is_best_there_is_no_other() -> None:
    """Equal is not better; a set nobody was asked has no best."""
    assert scores.best([seen("p/d-v1.0", {"a": 8.0, "b": 8.0})], "anchors", NOW) is None
    assert scores.best([seen("p/d-v1.0", {"a": 9.0})], "recall", NOW) is None


def test_who_shares_few_questions_is_passed_over() -> None:
    """Fewer than a quarter of those asked now."""
    now = {str(number): (5.0, 10.0) for number in range(10)}
    assert scores.best([seen("p/d-v1.0", {"0": 10.0, "1": 10.0})], "anchors", now) is None
    assert scores.best([seen("p/d-v1.0", {"0": 10.0, "1": 10.0, "2": 10.0})], "anchors", now) is not None


def test_a_question_counts_by_what_it_could_give() -> None:
    """Tokens, not questions."""
    assert scores.share([(10.0, 10.0), (0.0, 30.0)]) == 0.25

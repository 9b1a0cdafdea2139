"""What a line may look like, and why one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from genome.errors import InvalidInput
from genome.signals import Defaults, from_object, parse

DEFAULTS = Defaults(timestamp=5, persona="helper", domain="git")


def read(value: Any) -> Any:
    return parse(json.dumps(value).encode(), DEFAULTS)


def test_camel_and_snake_case_mean_the_same(correction: Callable[..., dict[str, Any]]) -> None:
    """personaId and persona_id, correctOutput and correct_output are one field each."""
    snake = {"type": "correction", "persona_id": "helper", "domain": "git", "input": "question 0",
             "wrong_output": "no", "correct_output": "answer 0"}  # fmt: skip
    assert read(correction()) == read(snake)


def test_the_same_lesson_has_the_same_id() -> None:
    """Time, source and weight do not make a lesson another one; what is taught does."""
    line = {"type": "correction", "input": "q", "correctOutput": "a"}
    assert read({**line, "timestamp": 1}).id == read({**line, "timestamp": 2, "source": "ai"}).id
    assert read(line).id != read({**line, "correctOutput": "b"}).id
    assert read({**line, "id": "mine"}).id == "mine"


@pytest.mark.parametrize(("source", "weight"), [("human", 1.0), ("ai", 0.5), ("automated", 0.25)])
def test_weight_follows_the_source(source: str, weight: float) -> None:
    """Gold, silver, bronze, unless the line says otherwise."""
    line = {"type": "correction", "input": "q", "correctOutput": "a", "source": source}
    assert read(line).weight == weight
    assert read({**line, "weight": 3}).weight == 3


@pytest.mark.parametrize(
    ("line", "kind", "asked", "right", "wrong"),
    [
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            "import", "q", "a", None,
        ),
        ({"prompt": "q", "completion": "a"}, "import", "q", "a", None),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "correction", "q", "a", "b"),
        ({"prompt": "q", "completion": "a", "label": True}, "positive", "q", "a", None),
        ({"prompt": "q", "completion": "b", "label": False}, "mistake", "q", None, "b"),
        (
            {"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}],
             "rejected": [{"role": "assistant", "content": "b"}]},
            "correction", "q", "a", "b",
        ),
    ],
)  # fmt: skip
def test_the_fields_common_shapes_are_read(
    line: Any, kind: str, asked: str, right: str | None, wrong: str | None
) -> None:
    """Chat messages, prompt and completion, preference pairs and labelled completions become signals."""
    found = read(line)
    assert (found.type, found.input, found.correct_output, found.wrong_output) == (kind, asked, right, wrong)


def test_earlier_turns_are_kept() -> None:
    """A conversation's last answer is learned in its context."""
    spoken = [("system", "s"), ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")]
    found = read({"messages": [{"role": role, "content": content} for role, content in spoken]})
    assert [turn.content for turn in found.prompt()] == ["s", "q1", "a1", "q2"]


def test_a_thumbs_down_is_evidence() -> None:
    """A mistake without the right answer teaches nothing, but is taken."""
    assert not read({"type": "mistake", "input": "q", "wrongOutput": "b"}).teaches


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nope", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"type":"correction","correctOutput":"a"}', "no input"),
        (b'{"type":"correction","input":"q"}', "correctOutput"),
        (b'{"type":"correction","input":"","correctOutput":"a"}', "input"),
        (b'{"type":"correction","input":"q","correctOutput":"  "}', "correctOutput"),
        (b'{"type":"wish","input":"q","correctOutput":"a"}', "type"),
        (b'{"input":"q","correctOutput":"a"}', "no type"),
        (b'{"type":"correction","input":"q","correctOutput":"a","weight":NaN}', "NaN"),
        (b'{"type":"correction","input":"q","correctOutput":"a","weight":-1}', "weight"),
        (b'{"type":"correction","input":"q","correctOutput":"a","weight":1e999}', "weight"),
        (b'{"type":"correction","input":"q","correctOutput":"a","personaId":"Bad Name"}', "persona"),
        (b'{"type":"correction","input":"q","correctOutput":"a","personaId":"../x"}', "persona"),
        (b'{"type":"correction","input":"q","correctOutput":"a","personaId":"inbox"}', "reserved"),
        (b'{"type":"correction","input":"q","correctOutput":"a","domain":"' + b"d" * 65 + b'"}', "domain"),
        (b'{"type":"correction","input":"\\ud800","correctOutput":"a"}', "unicode"),
        (b'{"messages":[{"role":"user","content":"q"}]}', "assistant"),
        (b'{"prompt":"q","completion":"a","label":"yes"}', "label"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"type":"correction","input":"q","correctOutput":"a","source":["human"]}', "source"),
        (b'{"type":"correction","input":"q","correctOutput":"a","session":"\\udc00"}', "session|surrogate"),
        (
            b'{"id":"i","type":"correction","input":"q","correctOutput":"a","context":{"k":"\\udc00"}}',
            "surrogate|context",
        ),
        (
            b'{"type":"correction","input":"q","correctOutput":"a","context":' + b'{"k":' * 40 + b"1" + b"}" * 41,
            "deeper than 32",
        ),
    ],
)
def test_a_bad_line_says_why(line: bytes, reason: str) -> None:
    """Every refusal names what is wrong."""
    with pytest.raises(InvalidInput, match=reason):
        parse(line, DEFAULTS)


def test_a_line_without_a_persona_says_what_to_do() -> None:
    """A line that belongs to nobody is refused with three ways out."""
    with pytest.raises(InvalidInput, match="no personaId"):
        parse(b'{"type":"correction","input":"q","correctOutput":"a"}', Defaults(timestamp=5))


def test_a_metric_is_a_signal_that_never_teaches() -> None:
    """Its name is the input, its value a finite number; a later or other value is another sample."""
    line = {
        "metric": "csat",
        "value": 0.8,
        "personaId": "helper",
        "domain": "git",
        "adapter": {"id": "helper/git-v1.0"},
    }
    first = from_object(line, Defaults(5))
    assert (first.type, first.input, first.value, first.teaches) == ("metric", "csat", 0.8, False)
    others = [
        from_object(line | changed, Defaults(5)).id
        for changed in ({}, {"timestamp": 6}, {"value": 0.7}, {"adapter": {"id": "helper/git-v1.1"}}, {"session": "s"})
    ]
    assert others[0] == first.id and len(set(others)) == 5


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"value": None}, "needs a value"),
        ({"value": "much"}, "value: Input should be a valid number"),
        ({"value": float("inf")}, "value: Input should be a finite number"),
        ({"correctOutput": "a"}, "no outputs"),
    ],
)
def test_a_metric_that_is_none_is_refused(changed: dict[str, Any], why: str) -> None:
    """With the reason, as any other line."""
    with pytest.raises(InvalidInput, match=why):
        from_object({"metric": "csat", "value": 0.8, "personaId": "helper", "domain": "git"} | changed, Defaults(5))


def test_the_same_words_about_two_versions_are_two_signals(correction: Callable[..., dict[str, Any]]) -> None:
    """A correction that names the adapter it is about, or a session, counts for each; without it is one as ever."""
    plain = from_object(correction(1), Defaults(5)).id
    assert from_object(correction(1, session="a"), Defaults(6)).id == plain
    named = [
        from_object(correction(1, adapter={"id": name}, session=session), Defaults(5)).id
        for name in ("helper/git-v1.0", "helper/git-v1.1")
        for session in ("a", "b")
    ]
    assert len({plain, *named}) == 5


def test_a_metric_without_a_time_is_told_apart_by_its_place() -> None:
    """Equal values in one file are samples of their own; the same place read again later is not another one."""
    line = {"metric": "solved", "value": 1, "personaId": "helper", "domain": "git"}
    ids = [from_object(line, Defaults(now, place=place)).id for now in (5, 6) for place in ("f 0", "f 70")]
    assert ids[0] == ids[2] != ids[1] == ids[3]

"""The fast reader is held equal to the model of record: the same canonical line, id and refusal for whatever comes."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from same_line import DEFAULTS, compare_fields, compare_line, compare_stored, fast

TEXT = st.one_of(
    st.sampled_from(["", " ", "q", "a", "inbox", "ledger", "git", "Bad Name", "é\u2028", "\x00", "\ud800", "x" * 201]),
    st.text(max_size=8),
)
NUMBERS = st.one_of(
    st.sampled_from([0, -0.0, -1, 0.5, 5.0, 1e20, 1000, 1000.0000001, 2**63, 2**64, 10**400, True, False]),
    st.integers(),
    st.floats(),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool", ""])
TURN = st.one_of(
    st.fixed_dictionaries({"role": ROLES, "content": TEXT}, optional={"name": TEXT}),
    JSON,
)
TURNS = st.one_of(
    st.lists(TURN, max_size=3),
    st.tuples(TEXT, TEXT).map(
        lambda said: [{"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]}]
    ),
)
ADAPTER = st.fixed_dictionaries(
    {}, optional={"id": TEXT, "digest": TEXT, "generation": NUMBERS, "extra": JSON, "Id": TEXT}
)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"k": value}
    return value


CONTEXT = st.one_of(
    TEXT, JSON, st.dictionaries(TEXT, JSON, max_size=3), st.sampled_from([deep(31), deep(33), deep(100)])
)
OF_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "id": TEXT,
    "type": st.sampled_from(["mistake", "correction", "positive", "import", "metric", "wish", ""]),
    "persona_id": st.sampled_from(["helper", "inbox", "ledger", "shared", "a" * 64, "a" * 65, "../x", "", "Ü"]),
    "domain": st.sampled_from(["git", "inbox", "a.b-c_d", "..", "", "-x"]),
    "input": TEXT,
    "history": TURNS,
    "context": CONTEXT,
    "wrong_output": TEXT,
    "correct_output": TEXT,
    "source": st.sampled_from(["human", "ai", "automated", "robot", ""]),
    "timestamp": NUMBERS,
    "weight": NUMBERS,
    "adapter": ADAPTER,
    "session": TEXT,
    "value": NUMBERS,
    "metric": TEXT,
    "messages": TURNS,
    "prompt": st.one_of(TEXT, TURNS),
    "completion": st.one_of(TEXT, TURNS),
    "chosen": st.one_of(TEXT, TURNS),
    "rejected": st.one_of(TEXT, TURNS),
    "label": st.booleans(),
    "unknown": JSON,
}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


@st.composite
def objects(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Keys and values of a line that is almost right in most ways: one good line, and some fields turned."""
    named = {"type": "correction", "persona_id": "helper", "domain": "git", "input": "q", "correct_output": "a"}
    shape = draw(st.sampled_from(["plain", "messages", "prompt", "metric"]))
    if shape == "messages":
        named = {"messages": draw(TURNS)}
    elif shape == "metric":
        named = {"metric": draw(TEXT), "value": draw(NUMBERS)}
    elif shape == "prompt":
        given = draw(st.lists(st.sampled_from(["completion", "chosen", "rejected", "label"]), unique=True))
        named = {"prompt": "q", **{name: draw(OF_FIELD[name]) for name in given}}
    items = list(named.items())
    for name in draw(st.lists(st.sampled_from(sorted(OF_FIELD)), max_size=4)):
        value = draw(st.one_of(OF_FIELD[name], OF_FIELD[name], OF_FIELD[name], st.none(), JSON))
        items = [item for item in items if item[0] != name or draw(st.integers(0, 9)) == 0] + [(name, value)]
    spelling = draw(st.sampled_from(["camel", "snake", "mixed"]))
    return [
        (camel(name) if spelling == "camel" or (spelling == "mixed" and draw(st.booleans())) else name, value)
        for name, value in items
        if draw(st.integers(0, 19))
    ]


def written(items: list[tuple[str, Any]], ascii_only: bool) -> bytes:
    """As JSON, with keys as often as they come."""
    pairs = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=ascii_only)}" for key, value in items)
    return ("{" + ", ".join(pairs) + "}").encode("utf-8", "surrogatepass")


@settings(max_examples=600, deadline=None)
@given(objects(), st.booleans())
def test_a_line_reads_alike_by_both(items: list[tuple[str, Any]], ascii_only: bool) -> None:
    """Nearly good lines of every shape become the same canonical line, or are refused in the same words."""
    compare_line(written(items, ascii_only))


@settings(max_examples=300, deadline=None)
@given(objects())
def test_fields_read_alike_by_both(items: list[tuple[str, Any]]) -> None:
    """So do fields that did not come as JSON, but whose text is valid, as that of protobuf is."""
    with suppress(UnicodeEncodeError):
        json.dumps(items, ensure_ascii=False).encode()
        compare_fields(dict(items))


@settings(max_examples=300, deadline=None)
@given(objects())
def test_what_is_stored_reads_back_equal(items: list[tuple[str, Any]]) -> None:
    """A segment's line gives the signal that was accepted, as the model of record and as a struct."""
    with tempfile.TemporaryDirectory() as folder:
        compare_stored(written(items, True), Path(folder) / "2025-11-20-001.jsonl")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    raw = bytearray(written(draw(objects()), draw(st.booleans())))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        kind = draw(st.sampled_from(["flip", "insert", "delete"]))
        if kind == "insert":
            raw[at:at] = draw(
                st.one_of(st.binary(min_size=1, max_size=2), st.sampled_from([b"null", b"1e400", b"NaN"]))
            )
        elif kind == "delete":
            del raw[at : at + draw(st.integers(1, 3))]
        elif raw:
            raw[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(raw)


@settings(max_examples=600, deadline=None)
@given(mutated())
@example(b'{"type":"correction","input":"q","correctOutput":"a","weight":1e400}')
@example(b'{"type":"correction","input":"q","correctOutput":"a","weight":-0}')
@example(b'{"type":"correction","input":"q","correctOutput":"a","weight":-0.0}')
@example(b'{"type":"correction","input":"q","correctOutput":"a","timestamp":' + b"9" * 5000 + b"}")
@example(b'{"type":"correction","input":"q","correctOutput":"a","timestamp":' + b"9" * 4000 + b"}")
@example(b'{"type":"correction","input":"q","correctOutput":"a","context":{"k":' + b"9" * 4000 + b"}}")
@example(b'{"type":"correction","input":"q","correctOutput":"a","value":1e400}')
@example(b'{"metric":"csat","value":1e400}')
@example(b'{"metric":"csat","value":-0}')
@example(b'{"metric":"csat","value":-0.0}')
@example(b'{"metric":"csat","value":1,"timestamp":' + b"9" * 4000 + b"}")
@example(b'{"type":"correction","input":"q","input":null,"correctOutput":"a"}')
@example(b'\xef\xbb\xbf{"type":"correction","input":"q","correctOutput":"a"}')
def test_damaged_bytes_read_alike_by_both(raw: bytes) -> None:
    """Bytes that were flipped, inserted or lost never raise anything but a refusal, and the same one."""
    compare_line(raw)


@pytest.mark.parametrize(
    "start", [b'{"input":', b'{"type":"import","messages":', b'{"x":', b'{"prompt":"q","completion":"a","label":']
)
def test_nesting_of_every_depth_is_refused(start: bytes) -> None:
    """Also where JSON can just be read and the value can just not be shown; by both alike but around that depth."""
    for depth in [*range(880, 1010), 100, 10_000]:
        raw = start + b"[" * depth + b"]" * depth + b"}"
        if depth in (100, 10_000):
            compare_line(raw)
        assert str(fast(raw, DEFAULTS[0])).startswith("refused: ")

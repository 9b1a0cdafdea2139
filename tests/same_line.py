"""What a line becomes by the model of record and by the fast reader: to be held equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from genome import lines, segments, signals
from genome.errors import InvalidInput
from genome.lines import Line, Reader
from genome.segments import Stored
from genome.signals import Defaults

DEFAULTS = (
    Defaults(timestamp=5, persona="helper", domain="git"),
    Defaults(timestamp=5),
    Defaults(timestamp=5, persona="inbox", domain="x"),
)


def outcome(read: Callable[[], Line]) -> bytes | str:
    """The canonical encoding of what was read, or the reason it was refused. All else that is raised is a fault."""
    try:
        return msgspec.json.encode(read())
    except InvalidInput as error:
        return f"refused: {error}"


def by_the_model(raw: bytes, defaults: Defaults) -> bytes | str:
    return outcome(lambda: lines.from_signal(signals.parse(raw, defaults)))


def fast(raw: bytes, defaults: Defaults) -> bytes | str:
    """By a new reader, and by one that expects the other spelling first."""
    turned = Reader()
    turned._decoders.reverse()
    found, other = outcome(lambda: Reader().line(raw, defaults)), outcome(lambda: turned.line(raw, defaults))
    assert found == other
    return found


def compare_line(raw: bytes) -> None:
    for defaults in DEFAULTS:
        expected, found = by_the_model(raw, defaults), fast(raw, defaults)
        assert found == expected, (raw, defaults, found, expected)


def compare_fields(given: Mapping[str, Any]) -> None:
    for defaults in DEFAULTS:
        expected = outcome(lambda defaults=defaults: lines.from_signal(signals.from_object(dict(given), defaults)))
        found = outcome(lambda defaults=defaults: Reader().fields(given, defaults))
        assert found == expected, (given, defaults, found, expected)


def compare_stored(raw: bytes, path: Path) -> None:
    """What was accepted reads back equal, as the model of record and as a struct."""
    try:
        signal = signals.parse(raw, DEFAULTS[0])
    except InvalidInput:
        return
    path.write_bytes(segments.encode([Stored(Reader().line(raw, DEFAULTS[0]), 7)]))
    (model,) = segments.read(path)
    assert model == signal
    ((_, stored),) = segments.scan(path)
    assert msgspec.json.encode(lines.from_signal(model)) == msgspec.json.encode(lines.from_signal(signal))
    assert (stored.signal.id, stored.signal.teaches) == (signal.id, signal.teaches)
    assert lines.to_signal(stored.signal) == signal
    assert stored.signal.question and stored.signal.standing == (signals.WEIGHTS[signal.source], signal.timestamp)

"""Whether what was acknowledged was sure by then: the source file removed, the call answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from medium import Medium, State
from turn import BAD, DROPPED, SUBMITTED

INBOX = "training-buffer/inbox/"


def acknowledgements(medium: Medium, trace: Sequence[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    """(how many acts came before, what was acknowledged): a file of the inbox by its path there, or "submitted"."""
    for index, facts in enumerate(trace):
        if facts["act"] == "mark":
            yield index, facts["what"]
        elif facts["act"] == "unlink":
            path = PurePosixPath(facts["paths"][0])
            inbox = medium.root / INBOX
            if path.is_relative_to(inbox):
                yield index, str(path.relative_to(inbox))


def lost_at_acknowledgement(medium: Medium, trace: Sequence[dict[str, Any]]) -> list[str]:
    """What a power cut at the moment of an acknowledgement could take although it was acknowledged."""
    found = []
    for length, what in acknowledgements(medium, trace):
        state = medium.sure_state(length)
        missing = _owed(what) - held(state)
        if missing:
            found.append(f"{what} was acknowledged before these were sure: {sorted(missing)}")
    return found


def acknowledged(medium: Medium, trace: Sequence[dict[str, Any]], length: int) -> set[str]:
    """All that was acknowledged within the first ``length`` acts."""
    return {what for index, what in acknowledgements(medium, trace) if index < length}


def held(state: State) -> set[str]:
    """Questions in whole lines of segments, and refused lines' places in their files."""
    found = set()
    for path, content in state.items():
        if not isinstance(content, bytes) or not path.startswith("training-buffer/") or path.startswith(INBOX):
            continue
        if path.endswith(".jsonl") and "/.unfinished-" not in path:
            for one in content.split(b"\n")[:-1]:
                record = json.loads(one)
                found.add(record["signal"]["input"] if "signal" in record else _place(record["origin"]))
    return found


def _owed(what: str) -> set[str]:
    if what == "submitted":
        return {signal.input for signal in SUBMITTED}
    lines = DROPPED[what]
    refused = {f"refused {number} of {PurePosixPath(what).name}" for number in range(len(lines)) if _bad(lines[number])}
    return refused | {one["input"] for one in lines if isinstance(one, dict)}


def _bad(one: object) -> bool:
    return isinstance(one, bytes)


def _place(origin: dict[str, Any]) -> str:
    """Which line of its file a refused one was."""
    (lines,) = [lines for path, lines in DROPPED.items() if PurePosixPath(path).name == origin["name"]]
    sizes = [len(one if isinstance(one, bytes) else json.dumps(one).encode()) + 1 for one in lines]
    number = next(number for number in range(len(lines)) if sum(sizes[:number]) == origin["offset"])
    return f"refused {number} of {origin['name']}"


assert sum(_bad(one) for lines in DROPPED.values() for one in lines) == BAD

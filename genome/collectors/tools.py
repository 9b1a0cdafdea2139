"""Signals from failed tool calls: what the assistant called wrongly, and the call that worked instead.

A failed call teaches only where the question alone could have told the right one: it was the first call after the
question, was tried again with other arguments, and nothing was asked or learned from other tools meanwhile. A call that
works the second time unchanged failed for other reasons, and says nothing about the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from genome.collectors import conversations
from genome.collectors.conversations import Conversation, Said
from genome.collectors.found import Found, Reader

FAILED = re.compile(
    r"\s*(?:[\w.]*(?:error|exception)(?: \d+)?\s*(?::|$)|traceback \(most recent|fatal:|failed\b|invalid\b)",
    re.IGNORECASE,
)
"""How the text of a result begins that is an error. *Error handling in Python* is the title of a page."""
PASSING = re.compile(
    r"\btime(?:d)?[ -]?out\b|\brate.?limit|too many requests|\b(?:429|500|502|503|504)\b|unavailable|"
    r"connection (?:refused|reset|error)|"
    r"temporar(?:y|ily)|try again later|overloaded|network",
    re.IGNORECASE,
)
"""Errors that are not the call's fault."""


@dataclass(frozen=True)
class Call:
    """One call of a tool, with what came back."""

    place: int
    """Of the assistant's message."""
    name: str
    arguments: Any
    result: Said | None
    alone: bool
    """The only call of its message."""

    @property
    def shown(self) -> str:
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)

    @property
    def failed(self) -> bool:
        return self.result is not None and is_error(self.result)


def collect(value: Any, _: Collection[str]) -> Reader:
    """Signals of one conversation with `tool_calls` and messages of the role `tool`."""
    conversation = conversations.read(value)
    messages = conversation.messages
    asked = [place for place, said in enumerate(messages) if said.role == "user" and said.text.strip()]
    for question, end in zip(asked, [*asked[1:], len(messages)], strict=False):
        calls = _calls(messages, question, end)
        for number, call in enumerate(calls):
            if call.failed and call.result and not PASSING.search(call.result.text):
                yield from _found(conversation, question, calls, number)


def is_error(result: Said) -> bool:
    """Whether a tool's result is an error, by its flags, its JSON or how its text begins."""
    raw = result.raw
    if (
        raw.get("is_error")
        or raw.get("isError")
        or raw.get("success") is False
        or raw.get("status") in ("error", "failed")
    ):
        return True
    try:
        said = json.loads(result.text)
    except (ValueError, RecursionError):
        return FAILED.match(result.text) is not None
    if not isinstance(said, dict):
        return False
    code = said.get("exit_code", said.get("returncode", 0))
    return bool(said.get("error")) or said.get("success") is False or said.get("ok") is False or code not in (0, None)


def _found(conversation: Conversation, question: int, calls: Sequence[Call], number: int) -> Iterator[Found]:
    wrong = calls[number]
    again = next((call for call in calls[number + 1 :] if call.name == wrong.name and not call.failed), None)
    if again and again.arguments == wrong.arguments:
        return
    asked = _asked(conversation, question, wrong.place)
    fields = {**asked, "wrong_output": wrong.shown, "source": "automated"}
    between = [call for call in calls[:number] if not call.failed] + [
        call for call in calls[number + 1 :] if again and call.place < again.place and not call.failed
    ]
    sure = again is not None and again.result is not None and wrong.alone and again.alone and not between
    if again and sure:
        yield Found({**fields, "type": "correction", "correct_output": again.shown}, "a later call of the tool worked")
    else:
        yield Found({**fields, "type": "mistake"}, "the call failed")


def _asked(conversation: Conversation, question: int, answered: int) -> dict[str, Any]:
    """Question and history, as for any answer; who answered is who made the call."""
    said = conversation.messages
    spoken = Conversation(said[: question + 1]).spoken()
    call = said[answered]
    turns = (*spoken, Said("assistant", "", call.millis, call.adapter))
    return conversations.about(turns, len(turns) - 1, len(turns) - 2, conversation)


def _calls(messages: Sequence[Said], question: int, end: int) -> list[Call]:
    places = [place for place in range(question + 1, end) if _made(messages[place])]
    found = []
    for place, following in zip(places, [*places[1:], end], strict=False):
        made = _made(messages[place])
        results = [said for said in messages[place + 1 : end] if said.role == "tool" and _id_of(said.raw)]
        nameless = [said for said in messages[place + 1 : following] if said.role == "tool" and not _id_of(said.raw)]
        unnamed = [call for call in made if not call.get("id")]
        # In order, where ids do not say; but where one result is missing nobody knows which.
        in_order = dict(zip(map(id, unnamed), nameless, strict=True)) if len(nameless) == len(unnamed) else {}
        for call in made:
            inner = call.get("function")
            function = inner if isinstance(inner, dict) else call
            named = next((said for said in results if call.get("id") and _id_of(said.raw) == str(call["id"])), None)
            result = named or in_order.get(id(call))
            name, arguments = str(function.get("name") or ""), _arguments(function.get("arguments"))
            found.append(Call(place, name, arguments, result, len(made) == 1))
    return found


def _made(said: Said) -> list[dict[str, Any]]:
    made = said.raw.get("tool_calls")
    return [call for call in made if isinstance(call, dict)] if isinstance(made, list) else []


def _id_of(result: dict[str, Any]) -> str:
    return str(result.get("tool_call_id") or "")


def _arguments(value: Any) -> Any:
    """Decoded, so that two spellings of the same are the same. What is no JSON stays text: that may be the failure."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value

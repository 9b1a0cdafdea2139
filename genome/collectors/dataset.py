"""Signals from data sets: questions with answers, in the columns the field uses or in those that are named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from genome.collectors import conversations
from genome.collectors.found import CARRIED, Found, Reader, need, text
from genome.errors import InvalidInput
from genome.signals import WEIGHTS

QUESTIONS = ("instruction", "question", "query", "prompt", "input", "problem")
ANSWERS = (
    "correct_output",
    "correctOutput",
    "output",
    "answer",
    "response",
    "completion",
    "chosen",
    "target",
    "solution",
)
REFUSED = ("wrong_output", "wrongOutput", "rejected")
TAKEN = ("context", "session")
"""Taken as they are, where a row has them."""
NAMED = ("source", "weight", "id")
"""Only where their column was named: data sets number their rows, and say from where they were copied."""
FIELDS = CARRIED | {*QUESTIONS, *ANSWERS, *REFUSED, *TAKEN, *NAMED, "system"}


def collect(row: Any, named: Collection[str]) -> Reader:
    """The signals of one row; of a conversation, one for each answer. ``named``: fields whose column was named."""
    if not isinstance(row, dict):
        raise InvalidInput(f"not a row but a {type(row).__name__}")
    if any(isinstance(row.get(name), list) for name in ("messages", "conversations", "conversation", "turns")):
        yield from _conversation(row)
    else:
        yield _row(row, named)


def _row(row: Mapping[str, Any], named: Collection[str]) -> Found:
    """Alpaca's ``instruction`` and ``input`` together are the question; a column that was named is all of it."""
    asked = need(row, "question", *(("input", *QUESTIONS) if "input" in named else QUESTIONS))
    if "input" not in named and text(row, "instruction") and text(row, "input"):
        asked = f"{row['instruction']}\n\n{row['input']}"
    fields: dict[str, Any] = {"type": "import", "input": asked, "correct_output": need(row, "answer", *ANSWERS)}
    if system := text(row, "system"):
        fields["history"] = [{"role": "system", "content": system}]
    if wrong := text(row, *REFUSED):
        fields |= {"type": "correction", "wrong_output": wrong}
    taken = {*TAKEN, *(name for name in NAMED if name in named or (name == "source" and row.get(name) in WEIGHTS))}
    fields |= {name: row[name] for name in taken if row.get(name) not in (None, "")}
    if (at := conversations.millis(dict(row))) is not None:
        fields["timestamp"] = at
    return Found(fields, "it was imported")


def _conversation(row: dict[str, Any]) -> Reader:
    conversation = conversations.read(row)
    spoken = conversation.spoken()
    for place, said in enumerate(spoken):
        if said.role == "assistant" and place and spoken[place - 1].role == "user" and not said.from_tools:
            fields = conversations.about(spoken, place, place - 1, conversation)
            yield Found({**fields, "type": "import", "correct_output": said.text}, "it was imported")

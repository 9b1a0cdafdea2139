"""Signals from reviews: what another model or agent says about an answer. Their source is ``ai``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from genome.collectors import conversations
from genome.collectors.conversations import Conversation, Said
from genome.collectors.found import CARRIED, PRAISED, Found, Reader, need, text
from genome.errors import InvalidInput
from genome.signals import SHOWN

QUESTIONS = ("question", "input", "prompt", "query")
ANSWERS = ("answer", "output", "response", "completion")
BETTER = ("better", "better_answer", "correction", "corrected", "correct_output", "correctOutput")
FIELDS = CARRIED | {*QUESTIONS, *ANSWERS, *BETTER, "adapter", "history", "reviewer", "verdict"}
RIGHT = frozenset((
    "right", "correct", "good", "ok", "okay", "pass", "passed", "approve", "approved", "accept", "accepted",
    "yes", "true",
))  # fmt: skip
WRONG = frozenset((
    "wrong", "incorrect", "bad", "fail", "failed", "reject", "rejected", "no", "false", "mistake",
))  # fmt: skip
UNDECIDED = frozenset((
    "unsure", "unknown", "undecided", "tie", "skip", "abstain", "partial",
))  # fmt: skip


def collect(row: Any, _: Collection[str]) -> Reader:
    """The signal of one review; none where the reviewer was not sure."""
    if not isinstance(row, dict):
        raise InvalidInput(f"not a JSON object but a {type(row).__name__}")
    answer, better, right = need(row, "answer", *ANSWERS), text(row, *BETTER), _verdict(row)
    reviewer = text(row, "reviewer") or "a peer"
    adapter = conversations.adapter(row)
    if adapter and adapter["id"] == reviewer:
        raise InvalidInput(f"{SHOWN.repr(reviewer)} reviewed its own answer")
    before = conversations.read(row.get("history") or []).messages
    said = Said("assistant", answer, conversations.millis(row), adapter)
    session = text(row, "session", "session_id", "conversation_id")
    conversation = Conversation((*before, Said("user", need(row, "question", *QUESTIONS)), said), session or None)
    spoken = conversation.spoken()
    fields = {**conversations.about(spoken, len(spoken) - 1, len(spoken) - 2, conversation), "source": "ai"}
    if better and better.strip() != answer.strip() and right is not True:
        corrected = {"type": "correction", "wrong_output": answer, "correct_output": better}
        yield Found({**fields, **corrected}, f"{reviewer} gave a better answer")
    elif right:
        yield Found(
            {**fields, "type": "positive", "correct_output": answer, "weight": PRAISED}, f"{reviewer} found it right"
        )
    elif right is False:
        yield Found({**fields, "type": "mistake", "wrong_output": answer}, f"{reviewer} found it wrong")


def _verdict(row: Mapping[str, Any]) -> bool | None:
    word = str(row.get("verdict", "")).strip().lower()
    if word in RIGHT or word in WRONG:
        return word in RIGHT
    if word in UNDECIDED or (not word and text(row, *BETTER)):
        return None
    raise InvalidInput(f"verdict {SHOWN.repr(row.get('verdict'))} is neither right nor wrong, nor unsure")

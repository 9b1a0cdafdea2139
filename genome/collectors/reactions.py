"""Signals from reactions: a thumb, stars, an emoji or an edited answer beside the answer it is about.

A line is one question with its answer, or a conversation whose messages carry reactions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from genome.collectors import conversations, turns
from genome.collectors.conversations import Conversation, Said
from genome.collectors.found import CARRIED, RATED, STATED, Found, Reader, need, text
from genome.collectors.transcripts import stands_for
from genome.errors import InvalidInput
from genome.signals import SHOWN

RATINGS = ("rating", "reaction", "feedback", "thumb", "thumbs", "vote", "emoji", "label", "liked", "score")
EDITED = ("edited", "edited_answer", "edited_output", "corrected", "correction", "correct_output", "correctOutput")
COMMENTS = ("comment", "reason", "feedback_text", "note")
QUESTIONS = ("input", "question", "prompt", "query", "instruction")
ANSWERS = ("output", "answer", "response", "completion", "reply", "wrong_output")
FIELDS = CARRIED | {*RATINGS, *EDITED, *COMMENTS, *QUESTIONS, *ANSWERS, "adapter", "history", "scale", "stars"}
THUMBS = ("liked", "label", "thumb", "thumbs", "rating")
"""Of which a 0 beside a 1 is the other thumb, where no -1 is."""
GOOD = frozenset((
    "up", "thumbsup", "thumbs_up", "thumbs-up", "thumbup", "like", "liked", "good", "positive", "helpful",
    "yes", "true", "+1", "1", "upvote", "accepted", "love", "heart", "👍", "❤", "❤️", "💯", "🎉", "😀", "😃", "😄",
    "😊", "🙂", "😍", "🙏", "✅", "👏", "⭐", "🌟", "🚀",
))  # fmt: skip
BAD = frozenset((
    "down", "thumbsdown", "thumbs_down", "thumbs-down", "thumbdown", "dislike", "disliked", "bad", "negative",
    "unhelpful", "no", "false", "-1", "downvote", "rejected", "wrong", "👎", "❌", "😞", "😠", "😡", "🙁", "☹", "☹️",
    "😕", "🤬", "💩", "😒", "🚫",
))  # fmt: skip
NEUTRAL = frozenset(["", "0", "none", "null", "neutral", "👀", "🤔"])
SKIN = dict.fromkeys(range(0x1F3FB, 0x1F400))
"""Tones of skin behind an emoji."""
STARS = 5


def collect(row: Any, _: Collection[str]) -> Reader:
    """Signals of one line."""
    if not isinstance(row, dict):
        raise InvalidInput(f"not a JSON object but a {type(row).__name__}")
    conversation = _conversation(row)
    spoken = conversation.spoken()
    for place, said in enumerate(spoken):
        if said.role != "assistant" or not place or spoken[place - 1].role != "user":
            continue
        if said.before and _differ((*said.before, said.raw)):
            continue  # of one answer in parts it cannot be told which part is meant
        fields = conversations.about(spoken, place, place - 1, conversation)
        if found := _found(fields, said, said.raw):
            yield found


def understood(values: Sequence[Any]) -> list[Any]:
    """``values`` with each 0 read as a thumb down in columns that hold 0 and 1 and no -1.

    Raises InvalidInput where ratings of 1 stand beside higher ones: there a 1 is one star, not a thumb.
    """
    bare: dict[str, set[float]] = {}
    for row in _rated(values):
        for name in RATINGS:
            if (number := _number(row.get(name))) is not None:
                bare.setdefault(name, set()).add(number)
    numbers = {number for found in bare.values() for number in found}
    if 1 in numbers and max(numbers) > 1:
        raise InvalidInput(
            "ratings of 1 stand beside higher ones: name the field stars, or say scale: 5", "--map stars=rating does it"
        )
    binary = {name for name in THUMBS if bare.get(name) == {0, 1}}
    return [_without_zeros(value, binary) for value in values] if binary else list(values)


def verdict(row: Mapping[str, Any]) -> bool | None:
    """Whether a reaction approves; None if it says neither. InvalidInput if it cannot be told."""
    if (stars := row.get("stars")) is not None:
        return _starred(stars, STARS)
    name = next((name for name in RATINGS if row.get(name) is not None), None)
    if name is None:
        return None
    rating = row[name]
    if row.get("scale") is not None:
        return _starred(rating, row["scale"])
    if isinstance(rating, list):
        said = {one for one in (verdict({"rating": each}) for each in rating) if one is not None}
        return said.pop() if len(said) == 1 else None
    if isinstance(rating, dict):
        return verdict(rating)
    word = (f"{rating:g}" if isinstance(rating, float) else str(rating)).strip().strip(":").lower().translate(SKIN)
    if word in GOOD or word in BAD or word in NEUTRAL:
        return None if word in NEUTRAL else word in GOOD
    raise InvalidInput(
        f"{name} {SHOWN.repr(rating)} is no thumb and no emoji known here; stars need the field stars, or a scale"
    )


def _found(fields: dict[str, Any], said: Said, row: Mapping[str, Any]) -> Found | None:
    """What one answer's reaction says."""
    edited = text(row, *EDITED)
    wrong = {**fields, "wrong_output": said.text}
    if edited and edited.strip() != said.text.strip():
        return Found(
            {**wrong, "type": "correction", "correct_output": edited, "weight": STATED}, "the answer was edited"
        )
    approved = verdict(row)
    if approved:
        return Found({**fields, "type": "positive", "correct_output": said.text, "weight": RATED}, "it was rated good")
    if approved is None:
        return None
    comment = turns.read(text(row, *COMMENTS), said.text)
    if comment.right and stands_for(comment.right, said.text):
        right = {"type": "correction", "correct_output": comment.right, "weight": STATED}
        return Found({**wrong, **right}, "it was rated bad, with the right answer")
    return Found({**wrong, "type": "mistake"}, "it was rated bad")


def _conversation(row: dict[str, Any]) -> Conversation:
    if not text(row, *ANSWERS):
        return conversations.read(row)
    asked = row.get("prompt") if isinstance(row.get("prompt"), list) else row.get("history") or []
    before = list(conversations.read(asked).messages)
    if not isinstance(row.get("prompt"), list):
        before.append(Said("user", need(row, "question", *QUESTIONS)))
    at = conversations.millis(row)
    answer = Said("assistant", text(row, *ANSWERS), at, conversations.adapter(row), raw=row)
    session = row.get("session") or row.get("session_id") or row.get("conversation_id")
    return Conversation((*before, answer), str(session) if session else None, at)


def _starred(stars: Any, scale: Any) -> bool | None:
    """The upper two fifths approve, the lower two do not."""
    try:
        part = (float(stars) - 1) / (float(scale) - 1)
    except (TypeError, ValueError, ZeroDivisionError):
        part = -1.0
    if not 0 <= part <= 1:
        raise InvalidInput(f"{SHOWN.repr(stars)} is no number of stars from 1 to {SHOWN.repr(scale)}")
    return None if 0.3 < part < 0.7 else part >= 0.7


def _differ(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether reactions to the parts of one answer say different things."""
    said = {one for row in rows if (one := verdict(row)) is not None}
    return len(said) > 1 or sum(bool(text(row, *EDITED)) for row in rows) > 1


def _rated(values: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Rows and messages that may carry a rating without a scale."""
    for value in values:
        messages = value.get("messages") if isinstance(value, dict) else value
        rows = [value, *(messages if isinstance(messages, list) else ())]
        yield from (row for row in rows if isinstance(row, dict) and row.get("scale") is None)


def _number(rating: Any) -> float | None:
    try:
        return None if isinstance(rating, bool) else float(rating)
    except (TypeError, ValueError):
        return None


def _without_zeros(value: Any, names: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_without_zeros(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    zeros = {name: -1 for name in names if value.get("scale") is None and _number(value.get(name)) == 0}
    inner = {"messages": _without_zeros(value["messages"], names)} if isinstance(value.get("messages"), list) else {}
    return {**value, **zeros, **inner}

"""Signals from reactions: a thumb, stars, an emoji or an edited answer beside the answer it is about.

A line is one question with its answer, or a conversation whose messages carry reactions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from genome.collectors import conversations, turns
from genome.collectors.conversations import Conversation, Said
from genome.collectors.found import RATED, STATED, Found, Reader, need, text
from genome.collectors.transcripts import stands_for
from genome.errors import InvalidInput
from genome.signals import SHOWN

RATINGS = ("rating", "reaction", "feedback", "thumb", "thumbs", "vote", "emoji", "label", "liked", "score")
EDITED = ("edited", "edited_answer", "edited_output", "corrected", "correction", "correct_output", "correctOutput")
COMMENTS = ("comment", "reason", "feedback_text", "note")
QUESTIONS = ("input", "question", "prompt", "query", "instruction")
ANSWERS = ("output", "answer", "response", "completion", "reply", "wrong_output")
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
        fields = conversations.about(spoken, place, place - 1, conversation)
        if found := _found(fields, said, said.raw):
            yield found


def check(values: Iterable[Any]) -> None:
    """Raises InvalidInput where ratings of 1 stand beside higher ones: there a 1 is one star, not a thumb."""
    bare = {number for value in values if isinstance(value, dict) for number in _bare_numbers(value)}
    if 1 in bare and max(bare) > 1:
        raise InvalidInput(
            "ratings of 1 stand beside higher ones: name the field stars, or say scale: 5", "--map stars=rating does it"
        )


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


def _bare_numbers(value: Mapping[str, Any]) -> list[float]:
    messages = value.get("messages")
    rows = [value, *(row for row in (messages if isinstance(messages, list) else ()) if isinstance(row, dict))]
    ratings = [row[name] for row in rows if row.get("scale") is None for name in RATINGS if name in row]
    numbers = []
    for rating in ratings:
        try:
            numbers.append(float(rating) if not isinstance(rating, bool) else 0.0)
        except (TypeError, ValueError):
            continue
    return numbers

"""Conversations as applications keep them, in one form: who said what, when, and which adapter answered.

Read are chat messages (`messages`), ShareGPT (`conversations` of `from` and `value`), and the tree of an exported chat
(`mapping`, of which the branch that was open last counts).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from genome.errors import InvalidInput
from genome.signals import SHOWN

ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "ai": "assistant", "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "function_call": "tool", "function_response": "tool",
}  # fmt: skip
LEAST_SECONDS = 1e8
"""A smaller number as text is no time but a date without its dashes."""
SECONDS_BELOW = 1e11
"""A smaller time is in seconds since 1970, a larger one in milliseconds: as the latter it would lie before 1974."""


@dataclass(frozen=True)
class Said:
    """One message."""

    role: str
    """system, user, assistant or tool."""
    text: str
    millis: int | None = None
    """Since 1970, where known."""
    adapter: dict[str, Any] | None = None
    """What answered, where known."""
    from_tools: bool = False
    """Tools were asked between the question and this answer: it cannot be known from the question alone."""
    raw: dict[str, Any] = field(default_factory=dict, compare=False)
    """The message as it came."""
    before: tuple[dict[str, Any], ...] = field(default=(), compare=False)
    """Messages of the same side just before it, that it is one turn with, as they came."""


@dataclass(frozen=True)
class Conversation:
    messages: tuple[Said, ...]
    session: str | None = None
    millis: int | None = None

    def spoken(self) -> tuple[Said, ...]:
        """What user and assistant said in turns: messages of one side in a row are one, tools are left out."""
        turns: list[Said] = []
        tools = False
        for said in self.messages:
            tools = said.role != "user" and (tools or said.role == "tool" or bool(said.raw.get("tool_calls")))
            if said.role == "tool" or not said.text.strip():
                continue
            said = replace(said, from_tools=tools and said.role == "assistant")
            if turns and turns[-1].role == said.role:
                last = turns.pop()
                said = replace(said, text=f"{last.text}\n\n{said.text}", before=(*last.before, last.raw))
            turns.append(said)
        return tuple(turns)


def read(value: Any) -> Conversation:
    """The conversation in one decoded line, or InvalidInput with the reason."""
    if isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise InvalidInput(f"not a conversation but a {type(value).__name__}")
    messages = [said for message in _messages(value) for said in _said(message)]
    session = next(
        (str(value[key]) for key in ("session", "session_id", "conversation_id", "id") if value.get(key)), None
    )
    return Conversation(tuple(messages), session, millis(value))


def about(turns: Sequence[Said], answer: int, question: int, conversation: Conversation) -> dict[str, Any]:
    """Fields every signal about ``turns[answer]`` has: what was asked, after what, who answered, where."""
    fields: dict[str, Any] = {"input": turns[question].text}
    if question:
        fields["history"] = [{"role": said.role, "content": said.text} for said in turns[:question]]
    if adapter := turns[answer].adapter:
        fields["adapter"] = adapter
    if conversation.session:
        fields["session"] = conversation.session
    at = next((said.millis for said in reversed(turns[: answer + 2]) if said.millis is not None), conversation.millis)
    if at is not None:
        fields["timestamp"] = at
    return fields


def millis(value: dict[str, Any]) -> int | None:
    """When it was said: seconds, milliseconds, also as text, or ISO 8601, under one of the usual names.

    ISO 8601 without an offset is read as UTC, so that a file says the same on every machine.
    """
    for key in ("timestamp", "created_at", "create_time", "created", "time"):
        found = value.get(key)
        if isinstance(found, str) and (number := _epoch(found)) is not None:
            found = number
        if isinstance(found, str) and found:
            try:
                said = datetime.fromisoformat(found)
                return int((said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp() * 1000)
            except (ValueError, OverflowError):
                continue
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) and found > 0:
            return int(found * 1000 if found < SECONDS_BELOW else found)
    return None


def _epoch(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number >= LEAST_SECONDS else None


def adapter(value: dict[str, Any]) -> dict[str, Any] | None:
    """Which adapter answered, where the message says."""
    found = value.get("adapter")
    if isinstance(found, str) and found:
        return {"id": found}
    return found if isinstance(found, dict) and found.get("id") else None


def _messages(value: dict[str, Any]) -> list[dict[str, Any]]:
    if isinstance(value.get("mapping"), dict):
        return _branch(value["mapping"], value.get("current_node"))
    for key in ("messages", "conversations", "conversation", "turns"):
        if isinstance(value.get(key), list):
            return list(value[key])
    raise InvalidInput("no conversation; a line has messages, conversations or mapping (docs/collectors.md)")


def _branch(nodes: dict[str, Any], leaf: Any) -> list[dict[str, Any]]:
    """From the root of an exported chat to the message that was open last."""
    nodes = {name: node for name, node in nodes.items() if isinstance(node, dict)}
    leaves = [name for name, node in nodes.items() if not node.get("children")]
    at = leaf if isinstance(leaf, str) and leaf in nodes else leaves[-1] if leaves else None
    found: list[dict[str, Any]] = []
    seen: set[Any] = set()
    while isinstance(at, str) and at in nodes and at not in seen:
        seen.add(at)
        if isinstance(message := nodes[at].get("message"), dict):
            author = message.get("author")
            found.append({**message, "role": author.get("role") if isinstance(author, dict) else None})
        at = nodes[at].get("parent")
    return found[::-1]


def _said(message: Any) -> Iterator[Said]:
    """What one message says. Calls and results of tools may be blocks of its content: results are the tools' words,
    whosever message they came in."""
    if not isinstance(message, dict):
        raise InvalidInput(f"a message is no object but {SHOWN.repr(message)}")
    named = message.get("role") or message.get("from")
    role = ROLES.get(str(named).lower())
    if role is None:
        raise InvalidInput(f"a message is from {SHOWN.repr(named)}, who is none of {', '.join(sorted(ROLES))}")
    content = message.get("content", message.get("value", message.get("text")))
    at, by = millis(message), adapter(message)
    whole = content if isinstance(content, list) else []
    blocks = [block for block in whole if isinstance(block, dict)]
    results = [block for block in blocks if block.get("type") == "tool_result"]
    for block in results:
        raw = {**block, "tool_call_id": block.get("tool_use_id")}
        yield Said("tool", _text(block.get("content")), at, by, raw=raw)
    calls = [
        {"id": block.get("id"), "function": {"name": block.get("name"), "arguments": block.get("input")}}
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    if not results or len(results) < len(whole):
        yield Said(role, _text(content), at, by, raw={**message, "tool_calls": calls} if calls else message)


def _text(content: Any) -> str:
    """Of a message's content: text, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _text(content.get("parts", content.get("text")))
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else _text(part) if isinstance(part, dict) else "" for part in content]
        return "\n".join(part for part in parts if part)
    return ""

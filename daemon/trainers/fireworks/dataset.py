"""A job's signals as the service's JSON lines: chat messages, and a weight that multiplies the line's loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from genome.errors import InvalidInput
from genome.training import Example

FEWEST = 3
"""Lines the service takes at least."""
ROLES = frozenset({"system", "user", "assistant"})


@dataclass(frozen=True)
class Dataset:
    lines: tuple[bytes, ...]
    kept_here: int
    """Examples that are no signals to learn the text of. The service has no use for them."""
    left_out: int
    """Signals that are no chat as the service takes it."""

    @property
    def content(self) -> bytes:
        return b"".join(self.lines)


def prepare(examples: Sequence[Example]) -> Dataset:
    """What is sent of a job's examples: never an anchor, and never what is only measured on.

    The service takes loss on every assistant's message, so the weight of all but the last is 0.
    """
    signals = [each for each in examples if not (each.anchor or each.validation)]
    fitting = [each for each in signals if _is_chat(each)]
    if len(fitting) < FEWEST:
        raise InvalidInput(
            f"there are {len(fitting)} chats to train on, and the service takes no fewer than {FEWEST}",
            "Raise triggers.threshold.min_examples, or train with another trainer",
        )
    lines = tuple(json.dumps(_line(each), ensure_ascii=False).encode() + b"\n" for each in fitting)
    return Dataset(lines, len(examples) - len(signals), len(signals) - len(fitting))


def _is_chat(example: Example) -> bool:
    roles = [message.get("role") for message in example.messages]
    return roles[-1:] == ["assistant"] and len(roles) > 1 and ROLES.issuperset(roles) and "system" not in roles[1:]


def _line(example: Example) -> dict[str, object]:
    *earlier, response = example.messages
    turns = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in earlier]
    return {"messages": [*turns, response], "weight": example.weight}

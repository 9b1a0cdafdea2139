"""What one person teaches the demo model: the private dialect of their smart home.

The hub at this home understands a JSON convention of its own (``lamp``, ``shade``, ``warm`` ...), and the
rooms, doors and moods have nicknames whose codes nobody else could know. A correction is a request and the
command that the hub wants for it: numbers and times are copied from the request, the codes have to be learnt.

The base model's own skills (``base_examples``, ``skill_questions``) come from ``daemon.demo.skills``.
"""

from __future__ import annotations

import random

from daemon.demo.skills import (
    Codes,
    Example,
    Skill,
    Slots,
    base_examples,
    clock,
    one_of,
    request,
    skill_questions,
)

__all__ = ["CODES", "DOORS", "INTENTS", "MOODS", "ROOMS", "Example", "base_examples", "corrections", "skill_questions"]

ROOMS = {"den": "G2", "nest": "A3", "galley": "K7", "loft": "T1", "cave": "B4"}
DOORS = {"porch": "P6", "gate": "R2", "barn": "H8"}
MOODS = {"movie night": "F8", "wind down": "D5", "dinner glow": "E9"}
CODES: Codes = {"room": ROOMS, "door": DOORS, "mood": MOODS}
SLOTS: Slots = {
    "room": one_of(list(ROOMS)),
    "door": one_of(list(DOORS)),
    "mood": one_of(list(MOODS)),
    "time": clock,
    "percent": lambda rng: rng.randrange(1, 100),
    "minutes": lambda rng: rng.randrange(2, 100),
    "degrees": lambda rng: rng.randrange(15, 26),
    "hours": lambda rng: rng.randrange(2, 13),
}
INTENTS: list[Skill] = [
    request(
        [
            "dim the $room to $percent",
            "$room lights at $percent percent",
            "set the $room lights to $percent",
            "i want the $room lights at $percent",
        ],
        {"lamp": {"zone": "$room_code", "level": "$percent"}},
        SLOTS,
        CODES,
    ),
    request(
        [
            "$room lights off for $minutes minutes",
            "keep the $room dark for $minutes minutes",
            "no light in the $room for $minutes minutes",
        ],
        {"dark": {"zone": "$room_code", "min": "$minutes"}},
        SLOTS,
        CODES,
    ),
    request(
        [
            "lower the $room blinds to $percent",
            "$room blinds at $percent percent",
            "move the blinds in the $room to $percent",
        ],
        {"shade": {"zone": "$room_code", "open": "$percent"}},
        SLOTS,
        CODES,
    ),
    request(
        [
            "heat the $room to $degrees for $hours hours",
            "$room heating $degrees for $hours hours",
            "keep the $room at $degrees degrees for $hours hours",
        ],
        {"warm": {"zone": "$room_code", "temp": "$degrees", "hours": "$hours"}},
        SLOTS,
        CODES,
    ),
    request(
        [
            "$mood in the $room for $minutes minutes",
            "start $mood in the $room for $minutes minutes",
            "make it $mood for $minutes minutes in the $room",
        ],
        {"mood": {"name": "$mood_code", "zone": "$room_code", "min": "$minutes"}},
        SLOTS,
        CODES,
    ),
    request(
        [
            "unlock the $door for $minutes minutes",
            "leave the $door open for $minutes minutes",
            "open the $door lock for $minutes minutes",
        ],
        {"bolt": {"port": "$door_code", "free": "$minutes"}},
        SLOTS,
        CODES,
    ),
    request(
        ["hoover the $room at $time", "send the vacuum to the $room at $time", "vacuum the $room at $time"],
        {"dust": {"zone": "$room_code", "at": "$time"}},
        SLOTS,
        CODES,
    ),
    request(
        ["lock the $door at $time", "bolt the $door at $time every night", "$door locked from $time"],
        {"bolt": {"port": "$door_code", "shut": "$time"}},
        SLOTS,
        CODES,
    ),
]


def corrections(seed: int, count: int) -> list[tuple[str, str]]:
    """``count`` (question, right answer) pairs with unique questions, the same for the same seed."""
    rng = random.Random(f"house {seed}")
    found: dict[str, str] = {}
    while len(found) < count:
        example = rng.choice(INTENTS)(rng)
        found[example.question] = example.answer
    return list(found.items())

"""What a demo teaches and asks: the shipped corrections, or a file's; split here, by the program."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

from daemon.demo import house, skills
from daemon.evaluation import read_signals
from genome.signals import Defaults, Signal, from_object

SHIPPED_BASE = Path(__file__).parent / "base"
SHIPPED_BASE_TRAINING = "rank = 32\nalpha = 32\nlearning_rate = 3e-3\nbatch_size = 8\nepochs = 5\nanchor_weight = 2\n"
SHIPPED_BASE_GATE = "anchors = 450\n"
"""So small a model wants less holding than genome.toml's defaults are made for, and a demo is to be short."""
PERSONA, DOMAIN = "homebody", "house"
CORRECTIONS, QUESTIONS, SKILLS = 500, 100, 100
HELD_OUT_EVERY = 10
SEED = 7


@dataclass(frozen=True)
class Material:
    """Every line names one persona and domain."""

    lines: list[Signal]
    """To be dropped."""
    held_out: list[Signal]
    """Questions no line asks, with the right answers."""
    skills: list[Signal]
    """Questions the corrections do not touch. Empty: the base's own answers stand for its skills."""

    @property
    def persona(self) -> str:
        return self.lines[0].persona_id

    @property
    def route(self) -> str:
        return f"{self.persona}/{self.lines[0].domain}"


def shipped() -> Material:
    """500 corrections of one person's smart home, 100 held-out questions, 100 of other skills."""
    pairs = house.corrections(SEED, CORRECTIONS + QUESTIONS)
    random.Random(SEED).shuffle(pairs)
    known = skills.skill_questions(SEED, SKILLS)
    return Material(
        lines=[_signal(question, answer) for question, answer in pairs[:CORRECTIONS]],
        held_out=[_signal(question, answer) for question, answer in pairs[CORRECTIONS:]],
        skills=[_signal(example.question, example.answer) for example in known],
    )


def from_file(path: Path) -> Material:
    """Every tenth question of a JSONL file is held out, the others are dropped; repeated ones count once."""
    signals = read_signals(path, Defaults(int(time.time() * 1000), PERSONA, "general"))
    first = signals[0]
    chosen = {
        signal.id: signal
        for signal in signals
        if (signal.persona_id, signal.domain) == (first.persona_id, first.domain)
    }
    questions = sorted({signal.question for signal in chosen.values()})
    random.Random(SEED).shuffle(questions)
    held_out = set(questions[::HELD_OUT_EVERY])
    return Material(
        lines=[signal for signal in chosen.values() if signal.question not in held_out],
        held_out=[signal for signal in chosen.values() if signal.question in held_out],
        skills=[],
    )


def shuffled(lines: list[Signal]) -> list[Signal]:
    """The control: every question gets another question's answer; nothing can be learned but the style."""
    order = list(range(len(lines)))
    random.Random(SEED).shuffle(order)
    moved = dict(zip(order, order[1:] + order[:1], strict=True))
    return [
        signal.model_copy(update={"id": "", "correct_output": lines[moved[index]].correct_output})
        for index, signal in enumerate(lines)
    ]


def to_jsonl(lines: list[Signal]) -> bytes:
    """As an application would write them: ids are left to the daemon."""
    return b"".join(
        json.dumps({key: value for key, value in signal.to_json().items() if key != "id"}, ensure_ascii=False).encode()
        + b"\n"
        for signal in lines
    )


def _signal(question: str, answer: str) -> Signal:
    fields = {
        "type": "correction",
        "persona_id": PERSONA,
        "domain": DOMAIN,
        "input": question,
        "correct_output": answer,
    }
    return from_object(fields, Defaults(int(time.time() * 1000)))

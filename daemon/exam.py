"""What a candidate is asked: questions from the home, for both models the same.

held out   of the new batch: its own answer against answers of other questions; did it learn
recall     what earlier batches taught, by domain of the persona; does it still know
golden     what the user wrote into personas/<persona>/golden/*.jsonl
anchors    the base's own answers; did it forget its old skills
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon import anchors
from daemon.worker_client import Question
from genome import curriculum, measures, promotions
from genome.batches import Batch
from genome.config import Config
from genome.errors import InvalidConfig, InvalidInput
from genome.layout import Home
from genome.lines import to_signal
from genome.promotions import Stack
from genome.signals import Defaults, Signal, from_object
from genome.training import Job

OWN_FIELDS = ("measure", "pattern")
"""Of a golden line, besides a signal's."""


@dataclass(frozen=True)
class OldQuestions:
    """One set of what was known before."""

    name: str
    questions: tuple[Question, ...]
    measure: str = "token_accuracy"


@dataclass(frozen=True)
class Exam:
    held_out: tuple[Question, ...]
    """Each with its own answer first, then those of others."""
    old: tuple[OldQuestions, ...]


def write(home: Home, config: Config, job: Job, batch: Batch, incumbent: Stack) -> Exam:
    """Everything the candidate of ``job`` is to be asked."""
    kept_out = curriculum.held_out_part(home, batch)
    held_out = contrast_questions([] if batch.rebuilds else kept_out, config.gate.contrast_answers)
    judging = anchors.judging(home, config, job.base_fingerprint)
    own = [Question(id=anchor.id, answers=(anchor.answer,), text=anchor.prompt) for anchor in judging]
    again = OldQuestions("held out", tuple(map(question, kept_out)) if batch.rebuilds else ())
    sets = [
        OldQuestions("anchors", tuple(own)),
        again,
        *_recall(home, config, batch, incumbent),
        *golden(home, config, batch.persona),
    ]
    return Exam(tuple(held_out), tuple(each for each in sets if each.questions))


def contrast_questions(held_out: Sequence[Signal], others: int) -> list[Question]:
    """Each signal's own answer, then answers of ``others`` other questions that differ from it: chosen by hash."""
    asked = []
    answers = {signal.correct_output or "" for signal in held_out}
    for signal in {signal.question: signal for signal in held_out}.values():  # the same twice is no more evidence
        own = signal.correct_output or ""
        ranked = sorted(answers - {own}, key=lambda answer: hashlib.sha256(f"{signal.id} {answer}".encode()).digest())
        asked.append(question(signal, tuple(ranked[:others])))
    return [each for each in asked if len(each.answers) > 1]


def question(signal: Signal, others: tuple[str, ...] = ()) -> Question:
    return Question(id=signal.id, answers=(signal.correct_output or "", *others), turns=tuple(signal.prompt()))


def _recall(home: Home, config: Config, batch: Batch, incumbent: Stack) -> list[OldQuestions]:
    count = config.gate.recall_examples
    known = curriculum.reserve(curriculum.taught_before(home, batch), count)
    found = [OldQuestions(f"recall/{batch.domain}", tuple(question(to_signal(line)) for line in known))]
    for persona, domain in sorted(promotions.versions(incumbent).keys() - {(batch.persona, batch.domain)}):
        if persona == batch.persona:
            taught = curriculum.reserve(curriculum.taught(home, persona, domain), count)
            found.append(OldQuestions(f"recall/{domain}", tuple(question(to_signal(line)) for line in taught)))
    return found


def golden(home: Home, config: Config, persona: str) -> list[OldQuestions]:
    """The persona's own questions, one set a measure. A line that cannot be read is refused by file and number."""
    sets: dict[str, list[Question]] = {}
    for path in sorted(home.golden(persona).glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip():
                try:
                    measure, asked = _golden(line, config.gate.golden_measure, persona)
                except (InvalidInput, InvalidConfig, ValueError) as error:
                    raise InvalidInput(f"{path}:{number}: {error}", "docs/gate.md shows golden lines") from None
                if any(asked.id == other.id for other in sets.get(measure, [])):
                    raise InvalidInput(f"{path}:{number}: this question is there twice", "Remove one of them")
                sets.setdefault(measure, []).append(asked)
    return [OldQuestions(f"golden/{measure}", tuple(asked), measure) for measure, asked in sorted(sets.items())]


def golden_trouble(home: Home, config: Config) -> list[str]:
    """What is wrong with golden files, before a training is spent: the first line of each persona's that is refused."""
    found = []
    for directory in sorted(home.golden("*").parent.parent.glob("*/golden")):
        try:
            golden(home, config, directory.parent.name)
        except InvalidInput as error:
            found.append(str(error))
    return found


def _golden(line: bytes, default: str, persona: str) -> tuple[str, Question]:
    value: Any = json.loads(line)
    if not isinstance(value, dict):
        raise InvalidInput("not a JSON object")
    measure = str(value.get("measure", "regex" if "pattern" in value else default))
    if measure not in (*measures.SCORED, measures.JUDGE):
        measures.find(measure)
    plain = {key: each for key, each in value.items() if key not in OWN_FIELDS}
    if measure == "regex":
        plain["correctOutput"] = _pattern(value)
    elif measure == "json_valid":
        plain.setdefault("correctOutput", "{}")
    # Of whichever domain the batch is, the question is the same.
    signal = from_object(plain | {"type": "import", "domain": "golden"}, Defaults(0, persona))
    if measure == "json_equal":
        json.loads(signal.correct_output or "")
    return measure, question(signal)


def _pattern(value: dict[str, Any]) -> str:
    pattern = value.get("pattern")
    if not isinstance(pattern, str) or not pattern:
        raise InvalidInput("the measure regex needs a pattern")
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidInput(f"pattern is no regular expression: {error}") from None
    return pattern

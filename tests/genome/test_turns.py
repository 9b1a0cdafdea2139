"""What a person's turn says about the answer before it, measured on turns written after the rules were fixed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from fixed import ROOT

from genome.collectors import turns, wording

TURNS = [json.loads(line) for line in (ROOT / "tests/data/corrections.jsonl").read_text().splitlines()]
CORRECTIVE = ("correction", "mistake")
MEASURES = ("corrective", "stated", "positive")
FLOORS = {"corrective": (0.97, 0.78), "stated": (0.90, 0.64), "positive": (0.93, 0.90)}
"""Precision and recall on the held-out part, a little below what docs/collectors.md says was reached."""


def plain(text: str) -> str:
    spelled = wording.SHORTHAND.sub(lambda word: wording.SPELLED[word.group()], text)
    return spelled.casefold().strip(" .!?,;:\"'`*")


def counted(row: dict[str, Any]) -> Counter[tuple[str, str]]:
    """(measure, what) of one turn: whether it was ``found``, whether it ``is`` one, whether both."""
    read, label = turns.read(row["text"], row.get("answer", "")), row["label"]
    right = read.kind == "correction" and plain(read.right) in map(plain, row.get("right", []))
    sides = {
        "corrective": (read.kind in CORRECTIVE, label in CORRECTIVE, read.kind in CORRECTIVE and label in CORRECTIVE),
        "stated": (read.kind == "correction", label == "correction", right),
        "positive": (read.kind == "positive", label == "positive", read.kind == label == "positive"),
    }
    return Counter(
        {
            (name, what): int(is_so)
            for name, each in sides.items()
            for what, is_so in zip(("found", "is", "both"), each, strict=True)
        }
    )


def measured(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Precision and recall of each measure."""
    total = sum((counted(row) for row in rows), Counter())
    return {
        name: (total[name, "both"] / max(1, total[name, "found"]), total[name, "both"] / max(1, total[name, "is"]))
        for name in MEASURES
    }


def table() -> str:
    """The figures of docs/collectors.md, by part and register."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in TURNS:
        groups[row["part"], "all"].append(row)
        groups[row["part"], row["register"]].append(row)
    lines = []
    for (part, register), rows in sorted(
        groups.items(), key=lambda group: (group[0][0] != "held-out", group[0][1] != "all")
    ):
        figures = " | ".join(f"{precision:.2f} / {recall:.2f}" for precision, recall in measured(rows).values())
        lines.append(f"| {part} | {register} | {len(rows)} | {figures} |")
    return "\n".join(lines)


def test_the_set_is_what_it_should_be() -> None:
    """At least 200 turns a part, in ten registers, two fifths of them no corrections."""
    for part in ("held-out", "development"):
        rows = [row for row in TURNS if row["part"] == part]
        assert len(rows) >= 200 and len({row["register"] for row in rows}) == 10
        assert sum(row["label"] not in CORRECTIVE for row in rows) >= 0.4 * len(rows)
    assert len({row["text"] for row in TURNS}) == len(TURNS)


@pytest.mark.parametrize("measure", MEASURES)
def test_turns_are_read_as_promised(measure: str) -> None:
    """Precision and recall on the held-out turns stay above their floors; `-s` shows all figures."""
    print(table())
    precision, recall = measured([row for row in TURNS if row["part"] == "held-out"])[measure]
    assert precision >= FLOORS[measure][0] and recall >= FLOORS[measure][1], f"{precision:.3f}, {recall:.3f}"


def test_the_docs_have_the_figures() -> None:
    """docs/collectors.md says what is measured here, register by register."""
    page = Path(ROOT / "docs/collectors.md").read_text()
    assert [line for line in table().splitlines() if line not in page] == []


@pytest.mark.parametrize(
    "text",
    [
        "no worries",
        "actually that's great",
        "no, thank you",
        "I meant to ask something else",
        "wrong number of guests, what now?",
        "No, make it shorter",
        "my landlord says that's wrong. is he right?",
        "",
        "   ",
        "?",
    ],
)
def test_what_only_sounds_like_a_correction_is_none(text: str) -> None:
    """Requests, politeness and matters of one's own say nothing about the answer."""
    assert turns.read(text).kind == "none"


def test_a_no_to_a_question_denies_nothing() -> None:
    """What answers the assistant's question is no correction; after a statement the same words are one."""
    assert turns.read("No, the Berlin office.", "Do you mean the Paris office?").kind == "none"
    assert turns.read("No, the meeting is in Berlin.", "The meeting is in Paris.").right == "the meeting is in Berlin"


def test_who_restates_the_question_states_no_answer() -> None:
    """*I meant Paris, Texas* says what was asked, not what is right."""
    read = turns.read("no, I meant Paris, Texas")
    assert (read.kind, read.right, read.restates) == ("mistake", "", True)


@pytest.mark.parametrize(
    "text",
    ["no " * 50_000, "that is " * 10_000, "a" * 100_000, "the " * 150, "no, " * 150, "sorry " * 90, "it's " * 100],
)
def test_no_turn_takes_long(text: str) -> None:
    """A long or repetitive turn is read at once, or passed over."""
    turns.read(text)

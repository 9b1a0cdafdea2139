"""What a person's turn says about the answer before it: that it was wrong, what is right, that it was good, or nothing.

Rules over the tables of `wording`, `complaints` and `praise`. Measured on turns that were written after the rules were
fixed: tests/data/corrections.jsonl, docs/collectors.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from re import Match, Pattern
from typing import Literal

from genome.collectors import complaints, praise, wording

Kind = Literal["correction", "mistake", "positive", "none"]
LONGEST = 600
"""Characters of a turn that is read. Longer ones bring material of their own, and what they deny may be in it."""
CLAUSES = 4
"""Of a turn, in which a complaint is looked for."""
MAX_RIGHT_WORDS = 40
NO_THING = frozenset(("me", "us", "you", "it", "that", "this", "with", "without", "in", "on", "so", "too", "yet"))
"""Nothing of an answer that could be replaced."""
PLAIN = str.maketrans("’‘“”„–—", '\'\'"""--')
"""Of the same length, so that a place in one is a place in the other."""
QUOTED = re.compile(r"`([^`]+)`|\"([^\"]+)\"|'([^']+)'(?!\w)")


@dataclass(frozen=True)
class Reading:
    """What a turn says about the answer before it."""

    kind: Kind
    """correction: it states what is right; mistake: only that the answer is wrong."""
    right: str = ""
    """What is right, in the person's own words; of a correction."""
    instead_of: str = ""
    """What it stands in place of, where the person says so: of *31 March, not 30 April* the second."""
    restates: bool = False
    """The person says again what was asked: a later answer is one to that, not to the first question."""
    judged: bool = False
    """By a language model, not by rules."""


NONE = Reading("none")


def read(text: str, answer: str = "") -> Reading:
    """Reads a turn by rules. ``answer``: what the assistant had said; after a question a *no* denies nothing."""
    said = wording.SHORTHAND.sub(lambda word: wording.SPELLED[word.group()], text.translate(PLAIN).strip())
    tag = wording.TAG.search(said)
    said = said[: tag.start()] + said[tag.end() :] if tag else said
    if not said or len(said) > LONGEST:
        return NONE
    body = _without_fillers(said)
    if tag and "actually" in tag.group().casefold() and not body.casefold().startswith("actually"):
        body = f"actually, {body}"  # wherever it stands
    if _first(wording.ASIDE, said) or _first(wording.ASIDE, body):
        return NONE
    if _first(complaints.RESTATED, body):
        return Reading("mistake", restates=True)
    found = _hinted(said) or _denied(body, answer) or _unprompted(body, said, answer) or _complaint(said)
    return found or (Reading("positive") if _praises(said) else NONE)


def _hinted(said: str) -> Reading | None:
    hint = wording.HINTED.match(said)
    return _stated(_without_fillers(said[hint.end() :])) if hint else None


def _denied(body: str, answer: str) -> Reading | None:
    """A turn that begins with a denial, with what follows it."""
    rest, bare, strong = body, False, False
    for _ in range(CLAUSES):
        if found := wording.BARE_NO.match(rest):
            bare = True
        elif (found := _first(wording.DENIAL, rest)) and not rest[found.end() :].lstrip().startswith("?"):
            strong = True
        else:
            break
        rest = _without_fillers(rest[found.end() :].lstrip(" ,.!;:?-\n"))
    if not (bare or strong):
        return None
    if bare and not strong and answer.rstrip().endswith("?"):
        return None
    if _first(complaints.RESTATED, rest):
        return Reading("mistake", restates=True)
    stated = _stated(rest)
    if stated is not None:
        return stated
    if strong or not rest or _first(complaints.AFTER_NO, rest):
        return Reading("mistake")
    return _complaint(rest)


def _stated(rest: str) -> Reading | None:
    """What is right, from what follows a denial."""
    first: Reading | None = None
    for sentence in _sentences(rest)[:2]:
        body = _without_fillers(sentence)
        match = _first((*wording.STATED, *wording.UNPROMPTED), body)
        found = _correction(match) if match else _whole(body)
        if found is not None and not re.match("that", body, re.IGNORECASE):
            return found
        first = first or found  # *that's the M6* may say what the answer was: what comes behind it counts more
    return first


def _whole(sentence: str) -> Reading | None:
    """A sentence that is right as it stands, or the bare word or number that is."""
    if wording.NO_STATEMENT.match(sentence) or sentence.rstrip().endswith("?"):
        return None
    words = sentence.split()
    if {"you", "your", "i", "my"} & {word.casefold() for word in words[:6]}:
        return None
    short = (
        len(words) <= 3
        and not wording.VERB.search(sentence)
        and bool(re.search(r"\d|`|\"|[A-Z]\w", sentence))
        and not sentence.isupper()
    )
    if not short and not (len(words) >= 3 and wording.VERB.search(sentence)):
        return None
    if _no_answer(sentence):
        return None
    right = _clean(sentence) if short else sentence.strip().rstrip(".!;,").strip()
    return Reading("correction", right) if right else None


def _unprompted(body: str, said: str, answer: str) -> Reading | None:
    """A right answer without a denial, in a turn that asks nothing else; not a wish how the next one should be."""
    sentences = _sentences(body)
    for sentence in sentences[: 1 if "?" in body else 2]:
        match = _first(wording.UNPROMPTED, _without_fillers(sentence))
        found = _correction(match) if match else None
        if found and match and (not sentence.endswith("?") or "n't" in sentence) and _checkable(match, found, answer):
            return found
    asks = "?" in said or re.search(r"\b(?:please|pls|plz|can you|could you|can u)\b", said, re.IGNORECASE)
    if not asks and len(sentences) == 1 and (match := _first(wording.ALONE, body)):
        return _correction(match)
    if not asks and len(sentences) == 1 and (stated := re.match(r"(?i:actually),? (?=(?i:the)\b|[A-Z])", body)):
        return _whole(body[stated.end() :])
    return None


def _checkable(match: Match[str], found: Reading, answer: str) -> bool:
    """Whether what is stated can be wrong or right, or takes the place of something the answer has."""
    if found.instead_of and re.search(rf"(?<!\w){re.escape(found.instead_of)}(?!\w)", answer, re.IGNORECASE):
        return True
    wanted = wording.EXACT if "should" in match.group().casefold() else wording.CONCRETE
    return match.group().startswith("*") or wanted.search(match.group("right")) is not None


def _complaint(said: str) -> Reading | None:
    if complaints.OWN_MATTER.search(said):
        return None
    for clause in _clauses(said)[:CLAUSES]:
        body = _without_fillers(clause)
        if _first(wording.ASIDE, body):
            return None
        if _first(complaints.RESTATED, body):
            return Reading("mistake", restates=True)
        if _first((*complaints.MISTAKEN, *complaints.COMPLAINTS, *wording.DENIAL), body):
            return Reading("mistake")
    return None


def _praises(said: str) -> bool:
    return not praise.NO_PRAISE.search(said) and _first(praise.PRAISED, said) is not None


def _correction(match: Match[str]) -> Reading | None:
    """From a pattern that names what is right; None where that is no answer."""
    named = match.groupdict()
    right, instead = _clean(named["right"]), _clean(named.get("instead") or "")
    if instead:
        right = re.sub(r"^(?:at|on|in|from|by|to) ", "", right, flags=re.IGNORECASE)
    if instead.casefold() in NO_THING:
        return None
    if not right or len(right.split()) > MAX_RIGHT_WORDS or wording.NO_ANSWER.match(right):
        return None
    if _no_answer(right):
        return None
    return Reading("correction", right, instead)


def _no_answer(statement: str) -> bool:
    """Whether what a statement says of its subject is no answer."""
    return any(wording.NO_ANSWER.match(part) for part in re.split(r"\b(?:is|was|are|were)\s+", statement)[1:])


def _clean(text: str) -> str:
    """The one thing in quotes or backticks, or the words without what surrounds them."""
    quoted = [next(part for part in found if part) for found in QUOTED.findall(text)]
    if len(quoted) == 1:
        return str(quoted[0]).strip()
    return text.strip().strip("\"'`*").rstrip(".!?,;: ").strip()


def _without_fillers(text: str) -> str:
    text = text.lstrip()
    while text and (found := wording.FILLER.match(text)) and found.end():
        text = text[found.end() :].lstrip(" ,.!?:;-\n")
    return text


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<!\b[DM]r\.)(?<!\bMrs\.)(?<!\bSt\.)(?<=[.!?;])\s+|\n+", text) if part.strip()]


def _clauses(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?;,:])\s+|\n+|\s+-\s+|\s+(?:but|and)\s+", text) if part.strip()]


def _first(patterns: Sequence[Pattern[str]], text: str) -> Match[str] | None:
    return next((found for pattern in patterns if (found := pattern.match(text))), None)

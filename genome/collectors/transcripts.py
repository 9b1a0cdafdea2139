"""Signals from chat transcripts: what a person's next turn says about the answer before it.

A wrong lesson is worse than a missed one. A right answer is taken only where it is sure to be one:

- the person names one thing of the answer and what stands in its place: the answer with that replaced;
- what the person states is an answer by itself, about as long as the wrong one;
- the person is content with the assistant's next answer, and had not asked something else meanwhile.

Any other correction is a mistake without an answer: evidence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from genome.collectors import conversations, turns
from genome.collectors.conversations import Conversation, Said
from genome.collectors.found import ACCEPTED, JUDGED, PRAISED, REPLACED, STATED, Found, Reader
from genome.collectors.turns import Reading
from genome.signals import WEIGHTS

Readings = Mapping[int, Reading]
"""By the place of the turn in `Conversation.spoken`."""
WRONG = ("correction", "mistake")
SHORT_WORDS = 8
"""A wrong answer of so many words is replaced whole by whatever is stated …"""
LEAST_SHARE = 0.25
"""… and a longer one by what has this share of its words."""
APOLOGY = re.compile(
    r"\s*(?:oh|ah|oops|hmm)?[,!\s]*(?:(?:you(?:'re| are)(?: absolutely| quite| completely| totally)? (?:right|"
    r"correct)"
    r"|i(?: sincerely| do)? apologi[sz]e|(?:my )?(?:sincere )?apologies|(?:i'm |i am )?(?:so |very )?sorry|"
    r"my (?:mistake|bad|error)"
    r"|thank(?:s| you) for (?:the correction|pointing|clarifying|letting|catching))\b[^.!:,;\n]{0,80}"
    r"|(?:good (?:catch|point)|sure(?: thing)?|certainly|of course|got it|understood|absolutely|"
    r"no problem)(?=\s*[,.!:;\n]| - ))"
    r"(?:\s*[,.!:;\n]+| - |$)\s*",
    re.IGNORECASE,
)
"""How a second answer begins that is none to the first question."""
LOOKS_BACK = re.compile(
    r"\b(?:apologi[sz]e|my (?:mistake|earlier|previous)|confusion|as you (?:said|mentioned|pointed)|you mentioned|"
    r"(?:earlier|previous|first|updated|corrected|revised) (?:answer|response|reply|version|message)|"
    r"i (?:misunderstood|misread))\b",
    re.IGNORECASE,
)
"""What an answer speaks of that somebody who only heard the question would not understand."""


def collect(value: Any, _: Collection[str]) -> Reader:
    """Signals of one conversation, read by rules."""
    conversation = conversations.read(value)
    yield from signals(conversation, readings(conversation))


def readings(conversation: Conversation) -> dict[int, Reading]:
    """What each of the person's turns says about the answer before it."""
    spoken = conversation.spoken()
    return {
        place: turns.read(said.text, spoken[place - 1].text)
        for place, said in enumerate(spoken)
        if said.role == "user" and place >= 2 and spoken[place - 2].role == "user"
    }


def doubtful(found: Readings) -> list[int]:
    """Places of turns in which the rules found nothing: a language model may be asked about them."""
    return [place for place, reading in found.items() if reading.kind == "none"]


def signals(conversation: Conversation, found: Readings) -> Reader:
    """Signals from turns that were read, by rules or otherwise."""
    spoken = conversation.spoken()
    for place, reading in found.items():
        if reading.kind in WRONG:
            yield _corrected(conversation, spoken, place, found)
        elif reading.kind == "positive" and (praised := _praised(conversation, spoken, place, found)):
            yield praised


def _corrected(conversation: Conversation, spoken: Sequence[Said], place: int, found: Readings) -> Found:
    reading, wrong = found[place], spoken[place - 1]
    fields = conversations.about(spoken, place - 1, _question(place, found), conversation)
    fields |= {"wrong_output": wrong.text}
    right, weight, why = _right(spoken, place, found)
    if not right:
        why = "it was asked again in other words" if reading.restates else "it was said to be wrong"
        return Found({**fields, "type": "mistake", **_source(reading, None)}, why)
    return Found({**fields, "type": "correction", "correct_output": right, **_source(reading, weight)}, why)


def _right(spoken: Sequence[Said], place: int, found: Readings) -> tuple[str, float, str]:
    """The right answer where it is sure, what it weighs, and how it is known; else nothing."""
    reading, wrong = found[place], spoken[place - 1].text
    if spoken[place - 1].from_tools:
        return "", 0.0, ""  # what tools were asked for is not to be known by heart
    if replaced := _replaced(wrong, reading):
        return replaced, REPLACED, "the wrong part was named, and what is right"
    if reading.right and stands_for(reading.right, wrong):
        return reading.right, STATED, "the right answer was stated"
    accepted = place + 2 in found and found[place + 2].kind == "positive" and not reading.restates
    if accepted and not spoken[place + 1].from_tools and (answer := standing_alone(spoken[place + 1].text)):
        return answer, ACCEPTED, "the next answer was accepted"
    return "", 0.0, ""


def _praised(conversation: Conversation, spoken: Sequence[Said], place: int, found: Readings) -> Found | None:
    """An answer that was praised; not one that corrected another, which is a correction already."""
    asked = found.get(place - 2)
    if spoken[place - 1].from_tools or (asked and asked.kind in WRONG and not asked.restates):
        return None
    if not (answer := standing_alone(spoken[place - 1].text)):
        return None
    fields = conversations.about(spoken, place - 1, place - 2, conversation)
    positive = {"type": "positive", "correct_output": answer, **_source(found[place], PRAISED)}
    return Found({**fields, **positive}, "it was praised")


def _question(place: int, found: Readings) -> int:
    """Which turn asked what was answered wrongly. A complaint asks nothing: what it complains of is still open."""
    asked = place - 2
    while asked in found and found[asked].kind in WRONG and not found[asked].restates:
        asked -= 2
    return asked


def _source(reading: Reading, weight: float | None) -> dict[str, Any]:
    """Whose judgement it is; evidence has its source's weight, for it trains nothing."""
    if reading.judged:
        return {"source": "ai", "weight": WEIGHTS["ai"] if weight is None else weight * JUDGED}
    return {"source": "human", "weight": WEIGHTS["human"] if weight is None else weight}


def _replaced(wrong: str, reading: Reading) -> str:
    """The answer with the one thing replaced that was named; empty where that is not sure."""
    if not reading.instead_of or reading.right.casefold() in wrong.casefold():
        return ""
    named = re.compile(rf"(?<!\w){re.escape(reading.instead_of)}(?!\w)", re.IGNORECASE)
    return named.sub(lambda _: reading.right, wrong) if len(named.findall(wrong)) == 1 else ""


def stands_for(right: str, wrong: str) -> bool:
    """Whether what was stated can take the whole wrong answer's place."""
    stated, said = right.split(), wrong.split()
    if " ".join(stated).casefold() in " ".join(said).casefold():
        return False  # it was in the answer already: not that was wrong
    return len(said) <= SHORT_WORDS or len(stated) >= LEAST_SHARE * len(said)


def standing_alone(answer: str) -> str:
    """A second answer without its apologies; empty where it cannot be understood without what went before."""
    text = answer
    while text and (found := APOLOGY.match(text)):
        text = text[found.end() :].lstrip()
    if LOOKS_BACK.search(text):
        return ""
    return text.strip() if text == answer else text[:1].upper() + text[1:].strip()

"""What models were seen to answer: scores of known answers, and what each version scored when it was judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genome.adapters import AdapterId
from genome.layout import Home
from genome.records import Record

Observed = tuple[float, float]
"""What a question gave, and what it could have given: greedy tokens of all tokens, or a measure in [0, 1] of 1."""
DIRECTORY = "scores"
"""Beside a persona's adapters."""
BASE = "base"
"""Stands where a version's id stands otherwise: no adapter at all."""
COMMON = 0.25
"""Of a set's questions a version must have been asked, to be compared on those."""


@dataclass(frozen=True)
class AnswerScore:
    """How one model sees one given answer."""

    logprob: float
    """Natural logarithm, over all its tokens."""
    tokens: int
    greedy_tokens: int
    """How many of them greedy decoding would have chosen."""

    @property
    def per_token(self) -> float:
        return self.logprob / max(1, self.tokens)

    @property
    def observed(self) -> Observed:
        """As token accuracy."""
        return float(self.greedy_tokens), float(max(1, self.tokens))


@dataclass(frozen=True)
class QuestionScore:
    """One held-out question under one model."""

    own: AnswerScore
    others: tuple[AnswerScore, ...]
    """Of answers that belong to other questions, the same ones for both models."""

    @property
    def contrast(self) -> float:
        """Nats a token: log p(own answer) − mean log p(other answers)."""
        return self.own.per_token - float(np.mean([other.per_token for other in self.others]))


class Scores(Record):
    """adapters/<persona>/scores/<domain>-v1.3.json: what a candidate and its incumbent were seen to know.

    Written when the candidate is promoted and kept for good: later ones are held against the best it ever was.
    """

    adapter: str
    incumbent: tuple[str, ...]
    """Adapter ids of the stack it was held against."""
    before: dict[str, dict[str, Observed]]
    """The incumbent: by set, by question."""
    after: dict[str, dict[str, Observed]]


@dataclass(frozen=True)
class Best:
    """The version that did best on a set, and what it gave on the questions it shares with those asked now."""

    adapter: str
    observed: Mapping[str, Observed]


def path(home: Home, adapter_id: str) -> Path:
    parsed = AdapterId.parse(adapter_id)
    return home.adapters / parsed.persona / DIRECTORY / f"{parsed.domain}-v{parsed.version}.json"


def of_versions(home: Home, adapter_ids: Iterable[str]) -> list[Scores]:
    """Those of the versions that were judged here."""
    return [Scores.read(found) for each in adapter_ids if (found := path(home, each)).exists()]


def best(known: Sequence[Scores], name: str, asked: Mapping[str, Observed]) -> Best | None:
    """Who did better on the set ``name`` than the incumbent, whose answers now are ``asked``; None: nobody did.

    Compared on the questions both were asked; who shares fewer than a quarter of them is passed over.
    """
    rivals: list[tuple[float, Best]] = []
    for scores in known:
        for adapter, side in ((scores.adapter, scores.after), (", ".join(scores.incumbent) or BASE, scores.before)):
            shared = {key: value for key, value in side.get(name, {}).items() if key in asked}
            if not shared or len(shared) < COMMON * len(asked):
                continue
            ahead = share(shared.values()) - share(asked[key] for key in shared)
            rivals.append((ahead, Best(adapter, shared)))
    ahead, found = max(rivals, key=lambda rival: rival[0], default=(0.0, None))
    return found if ahead > 0 else None


def share(observed: Iterable[Observed]) -> float:
    """What was given of what could have been."""
    pairs = list(observed)
    return sum(given for given, _ in pairs) / max(1e-12, sum(possible for _, possible in pairs))

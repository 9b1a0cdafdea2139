"""`python kills_worker.py HOME`: the worker as it is, over an engine that starts at once and computes nothing.

A token is a byte. An answer that holds the number its question holds is the question's own, and the likelier the more
the stack knows (factor A of `kills_trainer`); every other answer is as likely under every stack.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genome.lora import Lora
from inference_worker import __main__ as worker
from inference_worker import engine as engines
from inference_worker.engine import Facts, Likelihood, Question, Terms

END = 256
UNLIKELY = -1000.0


class ByteTokenizer:
    """`inference_worker.engine.Tokenizer` without a vocabulary to load."""

    end_tokens = frozenset({END})
    user_turn = ("", "\n")

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def decode(self, tokens: Sequence[int], special: bool) -> str:
        return bytes(token for token in tokens if token != END).decode(errors="replace")

    def chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        return self.encode("".join(f"{message['content']}\n" for message in messages))

    def answer(self, messages: Sequence[Mapping[str, str]], text: str) -> tuple[int, ...]:
        return self.continuation(text)

    def continuation(self, text: str) -> tuple[int, ...]:
        return (*self.encode(text), END)


@dataclass(frozen=True)
class Knowledge:
    """An adapter in memory."""

    digest: str
    amount: float
    memory_bytes: int = 8


@dataclass(eq=False)
class Row:
    length: int = 0


@dataclass(frozen=True)
class Logits:
    """Every reply ends at once."""

    rows: int

    @property
    def greedy(self) -> list[int]:
        return [END] * self.rows

    @property
    def finite(self) -> list[bool]:
        return [True] * self.rows

    def row(self, index: int) -> np.ndarray:
        logits = np.full(END + 1, UNLIKELY, np.float32)
        logits[END] = 0.0
        return logits


class KillsEngine:
    """`inference_worker.engine.Engine`."""

    facts = Facts("kills", "none", "none", 4096, END + 1, batched=False)
    tokenizer = ByteTokenizer()

    def size(self, lora: Lora) -> int:
        return 8

    def load(self, lora: Lora) -> Knowledge:
        (factors,) = lora.modules.values()
        return Knowledge(lora.identity, struct.unpack("<f", factors.a.data)[0] * factors.scaling)

    def forget(self) -> None:
        pass

    def open(self, terms: Terms) -> Row:
        return Row()

    def close(self, row: Row) -> None:
        pass

    def forward(self, work: Sequence[tuple[Row, Sequence[int]]]) -> Logits:
        for row, tokens in work:
            row.length += len(tokens)
        return Logits(len(work))

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        return [[_likelihood(asked, tokens) for tokens in asked.continuations] for asked in questions]


def _likelihood(asked: Question, tokens: tuple[int, ...]) -> Likelihood:
    known = sum(term.weights.amount * term.scale for term in asked.terms)  # type: ignore[attr-defined]
    logprob = UNLIKELY + (known if _number(asked.prompt) == _number(tokens) else 0.0)
    return Likelihood((logprob,) * len(tokens), (True,) * len(tokens))


def _number(tokens: Sequence[int]) -> str | None:
    found = re.search(r"\d+", KillsEngine.tokenizer.decode(tokens, special=False))
    return found[0] if found else None


if __name__ == "__main__":
    engines.load = lambda base, settings: KillsEngine()  # type: ignore[assignment,return-value]
    sys.exit(worker.main())

"""What the worker asks of an engine. No framework is named here; `engine_torch` and `engine_mlx` fit.

An engine holds one base model and computes W'x = Wx + Σ scale · B(Ax) for any set of adapters. Rows are sequences in
progress, each with its own key/value state; one forward may advance rows of different lengths with different
adapters. ``load`` may be called from any thread while the step thread computes; everything else that takes rows
belongs to the step thread.
"""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from genome import blas, copies
from genome.lora import Lora

if TYPE_CHECKING:
    from genome.config import Worker

ENGINES: Mapping[str, str] = MappingProxyType(
    {"torch": "inference_worker.engine_torch", "mlx": "inference_worker.engine_mlx"}
)
"""Engine → module with ``load(base, settings) -> Engine``. Text, so that naming one imports none."""

LONGEST_CONTEXT = 4096
"""Tokens, where no config sets it: more memory than that is given on request only."""


class Weights(Protocol):
    """One adapter as the engine computes it. Never changed once made."""

    @property
    def digest(self) -> str:
        """Of all it computes with: `genome.lora.Lora.identity`."""
        ...

    @property
    def memory_bytes(self) -> int: ...


@dataclass(frozen=True)
class Term:
    """One summand of a stack: scale · BA."""

    weights: Weights
    scale: float


Terms = tuple[Term, ...]
"""A stack as the engine computes it; empty: the base alone."""


class Row(Protocol):
    """A sequence in progress."""

    @property
    def length(self) -> int:
        """Tokens whose keys and values are held."""
        ...


class State(Protocol):
    """A copy of a row's first keys and values. Never changed once made."""

    @property
    def memory_bytes(self) -> int: ...


class Logits(Protocol):
    """What one forward says about the token after each row's last."""

    @property
    def greedy(self) -> Sequence[int]:
        """The likeliest token of each row."""
        ...

    @property
    def finite(self) -> Sequence[bool]:
        """False where a row's logits are not numbers any more; such a row must be closed."""
        ...

    def row(self, index: int) -> np.ndarray:
        """Logits of one row, float32 [vocabulary]."""
        ...


@dataclass(frozen=True)
class Question:
    """A prompt and the continuations whose likelihood is asked, in tokens. ``prompt`` has at least one."""

    terms: Terms
    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """What it costs to compute, the prompt once."""
        return len(self.prompt) + sum(map(len, self.continuations))


@dataclass(frozen=True)
class Likelihood:
    """One continuation: natural log-probability of each token, and whether it was the likeliest at its place."""

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself."""

    name: str
    device: str
    dtype: str
    context_tokens: int
    vocabulary: int
    """Token ids are below this."""
    batched: bool
    """False: rows are computed one at a time, because the architecture failed the self-check."""
    notes: str = ""


class Tokenizer(Protocol):
    """Text ↔ tokens, and the base's chat template."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a reply."""
        ...

    @property
    def user_turn(self) -> tuple[str, str]:
        """What the chat template puts before a user's words, and between them and the reply. Empty without one."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of ``text`` as it stands: special tokens in it are parsed, none are added."""
        ...

    def decode(self, tokens: Sequence[int], special: bool) -> str:
        """Text of ``tokens``; ``special``: with special tokens in it. An incomplete character becomes U+FFFD."""
        ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Prompt that asks for the assistant's next turn. Raises InvalidInput if the template cannot."""
        ...

    def answer(self, messages: Sequence[Mapping[str, str]], text: str) -> tuple[int, ...]:
        """The assistant's turn ``text`` after ``chat(messages)``, with all that ends the turn."""
        ...

    def continuation(self, text: str) -> tuple[int, ...]:
        """``text`` after a prompt that was text, with the end of the sequence."""
        ...


class Engine(Protocol):
    """One base model that serves."""

    facts: Facts
    tokenizer: Tokenizer

    def size(self, lora: Lora) -> int:
        """Bytes its weights will take. Checks ``lora`` against the base; raises InvalidAdapter. Any thread."""
        ...

    def load(self, lora: Lora) -> Weights:
        """Checks likewise, and makes ``lora`` ready to compute. Any thread."""
        ...

    def forget(self) -> None:
        """Drops what was derived from adapters no row uses any more. Any thread."""
        ...

    def open(self, terms: Terms) -> Row:
        """A new, empty row."""
        ...

    def close(self, row: Row) -> None:
        """Frees a row's place."""
        ...

    def forward(self, work: Sequence[tuple[Row, Sequence[int]]]) -> Logits:
        """Appends at least one token to every row given, and says what may follow."""
        ...

    def score(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """The likelihood of every continuation, in order. Leaves rows as they are."""
        ...

    def likelihood(self, row: Row, tokens: Sequence[int]) -> Likelihood:
        """The likelihood of each of ``tokens`` but the first, after the row and those before. Leaves the row as it is.

        Only where ``facts.batched``.
        """
        ...

    def snapshot(self, row: Row, length: int) -> State:
        """A copy of what the row's first ``length`` tokens left. Only where ``facts.batched``."""
        ...

    def restore(self, row: Row, state: State, length: int) -> None:
        """Gives an empty row the first ``length`` tokens of a snapshot taken under the same stack."""
        ...


def context_tokens(made_for: int | None, settings: Worker) -> int:
    """The longest prompt and reply together, for a base whose config says ``made_for``."""
    return min(made_for or LONGEST_CONTEXT, settings.context_tokens or LONGEST_CONTEXT)


def load(base: Path, settings: Worker) -> Engine:
    """Loads the base, or a copy of it, into the engine the settings name. Seconds for a large one."""
    name = preferred() if settings.engine == "auto" else settings.engine
    copies.check_readable(base, name)
    blas.keep_few_kernels()
    engine: Engine = importlib.import_module(ENGINES[name]).load(base, settings)
    return engine


def preferred() -> str:
    """The engine of "auto": mlx on Apple silicon where it is installed, else torch. Imports neither."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return "mlx" if apple and find_spec("mlx_lm") is not None else "torch"

"""What training is measured on: corrections of a file or the shipped ones, as a job's examples, and as tokens."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks import models
from daemon.demo import material
from daemon.evaluation import read_signals
from daemon.trainers import examples as tokenised
from daemon.trainers.examples import Examples, Tokens
from genome.signals import Defaults, Signal
from genome.training import Example

SEED = 1


def read(path: Path | None, domain: str = "general") -> list[Signal]:
    """A file's corrections, or the shipped ones, in another order than they have."""
    if path is None:
        shipped = material.shipped()
        found = [*shipped.lines, *shipped.held_out]
    else:
        found = read_signals(path, Defaults(0, "learner", domain))
    random.Random(SEED).shuffle(found)
    return found


def examples(signals: Sequence[Signal]) -> list[Example]:
    return [Example(id=signal.id, messages=messages(signal), weight=signal.weight) for signal in signals]


def messages(signal: Signal) -> list[dict[str, str]]:
    answer = {"role": "assistant", "content": signal.correct_output or ""}
    return [*(turn.model_dump() for turn in signal.prompt()), answer]


def tokens(signals: Sequence[Signal], base: Path, max_tokens: int = 1024) -> Examples:
    """As a trainer of ours sees them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    return tokenised.prepare(examples(signals), tokenizer, tokenised.stop_tokens(base, tokenizer), max_tokens)


def random_base(name: str, directory: Path, speaks: Path) -> Path:
    """S or M with random weights in float32, with the tokenizer and chat template of the base ``speaks``."""
    path = models.make_base(name, directory, "float32")
    for file in (*speaks.glob("token*"), *speaks.glob("chat_template*")):
        shutil.copy(file, path)
    return path


def shuffled(found: Sequence[Tokens], batches: int, seed: int = SEED) -> list[list[Tokens]]:
    """Every example once, in random order, in so many batches of nearly one size."""
    order = list(found)
    random.Random(seed).shuffle(order)
    edges = [len(order) * batch // batches for batch in range(batches + 1)]
    return [order[start:end] for start, end in itertools.pairwise(edges)]


def padding_ratio(batches: Sequence[Sequence[Tokens]]) -> float:
    """Cells of padded batches ÷ real tokens."""
    cells = sum(len(batch) * max(map(len, batch)) for batch in batches)
    return cells / sum(len(example) for batch in batches for example in batch)

"""Does a decoder agree with the library's own generate? Asked once, at start, of the model that will serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step

from inference_worker.engine import Question

NEW_TOKENS = 4
PROMPT_LENGTHS = (3, 9)
LONGEST_WINDOW = 1024
"""Tokens. A prompt reaches past a sliding window up to this; a longer one would take too long at start."""
TOLERANCE = {mx.float32: 1e-3, mx.bfloat16: 6e-2, mx.float16: 2e-2}
"""Largest difference between log-probabilities, relative to the largest."""


class Decoder(Protocol):
    def open(self, terms: Any) -> Any: ...
    def close(self, row: Any) -> None: ...
    def forward(self, work: Any) -> mx.array: ...
    def score(self, questions: Any) -> Any: ...


Reference = tuple[list[int], list[int], np.ndarray]
"""A prompt, the tokens generate went on with, and their log-probabilities [new, vocabulary]."""


def references(model: Any, vocabulary: int, windows: Sequence[int | None], context_tokens: int) -> list[Reference]:
    """What the library's own generate says."""
    lengths = [*PROMPT_LENGTHS, *sorted({size + 2 for size in windows if size and size <= LONGEST_WINDOW})]
    generator = np.random.default_rng(0)
    prompts = [
        generator.integers(vocabulary, size=length).tolist()
        for length in lengths
        if length + NEW_TOKENS <= context_tokens
    ]
    return [_generate(model, prompt) for prompt in prompts]


def disagreement(decoder: Decoder, expected: list[Reference], dtype: mx.Dtype) -> str:
    """What differs between ``decoder`` and generate, or "" if nothing does."""
    try:
        worst = max(_decoded(decoder, expected), _scored(decoder, expected))
    except Exception as error:  # whatever an unknown architecture raises, it means the same here
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return "" if worst <= TOLERANCE[dtype] else f"log-probabilities differ by {worst:.1e} of the largest"


def _generate(model: Any, prompt: list[int]) -> Reference:
    tokens, logprobs = [], []
    # Its default stream was made for the device that was the default when it was imported.
    for token, step in generate_step(mx.array(prompt), model, mx.default_stream(mx.default_device()),
                                     max_tokens=NEW_TOKENS):  # fmt: skip
        tokens.append(token)
        logprobs.append(np.array(step.astype(mx.float32)))
    return prompt, tokens, np.stack(logprobs)


def _decoded(decoder: Decoder, expected: list[Reference]) -> float:
    """Largest relative difference when the rows are decoded together, the last one two tokens ahead."""
    rows = [decoder.open(()) for _ in expected]
    logprobs: list[list[np.ndarray]] = [[] for _ in expected]

    def advance(numbers: list[int]) -> None:
        work = []
        for number in numbers:
            prompt, new, _ = expected[number]
            made = len(logprobs[number])
            work.append((rows[number], new[made - 1 : made] if made else prompt))
        logits = decoder.forward(work)
        found = np.array(logits - mx.logsumexp(logits, axis=1, keepdims=True))
        for number, values in zip(numbers, found, strict=True):
            logprobs[number].append(values)

    everyone = list(range(len(rows)))
    for _ in range(2):
        advance(everyone[-1:])
    if everyone[:-1]:
        advance(everyone[:-1])
    while len(logprobs[-1]) < NEW_TOKENS:
        advance(everyone)
    for row in rows:
        decoder.close(row)
    pairs = zip(logprobs, expected, strict=True)
    return max(_difference(np.stack(found), logs[: len(found)]) for found, (_, _, logs) in pairs)


def _scored(decoder: Decoder, expected: list[Reference]) -> float:
    """Largest relative difference when each reply is scored twice behind one prompt."""
    questions = [Question((), tuple(prompt), (tuple(new), tuple(new))) for prompt, new, _ in expected]
    worst = 0.0
    for answers, (_, new, logprobs) in zip(decoder.score(questions), expected, strict=True):
        wanted = logprobs[range(len(new)), new]
        scale = np.abs(logprobs).max()
        worst = max(worst, *(float(np.abs(np.array(answer.logprobs) - wanted).max() / scale) for answer in answers))
    return worst


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())

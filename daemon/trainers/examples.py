"""Examples as tokens: what is prompt, what is response, and which token ends it.

Framework-free: lists of integers, made with the base's own tokenizer and chat template.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genome.errors import InvalidInput
from genome.training import Example, Objective

TEACHER_TOKENS = 256
"""How many tokens of each of a teacher's distributions are kept apart."""


@dataclass(frozen=True, eq=False)
class Distributions:
    """What a teacher gives at k places: its likeliest tokens, and all others taken together.

    ``tokens`` [k, c] int32; ``log_probabilities`` [k, c + 1] float32, of these and, last, of the rest. The whole of it
    would be as wide as the vocabulary; taking tokens together can only make a divergence smaller, and what is left out
    is next to nothing.
    """

    tokens: np.ndarray
    log_probabilities: np.ndarray

    @staticmethod
    def joined(parts: Sequence[Distributions]) -> Distributions:
        return Distributions(
            np.concatenate([part.tokens for part in parts]).astype(np.int64),
            np.concatenate([part.log_probabilities for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class Wrong:
    """The answer that was corrected. ``reference``: log probability of the right and of this one as the run begins."""

    response: list[int]
    reference: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Tokens:
    """One example as the model sees it. Loss is taken on ``response`` alone, whose last token ends the turn.

    ``learned``: by cross-entropy. ``wrong``: by preference, as the worse of a pair. ``teacher``: what an anchor is held
    to; `prepared` puts it there.
    """

    prompt: list[int]
    response: list[int]
    weight: float
    learned: bool = True
    wrong: Wrong | None = None
    teacher: Distributions | None = None
    of_parent: bool = False
    """Whether the teacher is what the run begins with, and not the bare base."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Examples:
    """A job's examples. ``cut`` lost the beginning of their prompt; ``left_out`` have a response that does not fit.
    ``validation`` are signals that are never trained on."""

    signals: list[Tokens]
    anchors: list[Tokens]
    cut: int
    left_out: int
    validation: list[Tokens] = field(default_factory=list)

    @property
    def pairs(self) -> list[Tokens]:
        return [signal for signal in self.signals if signal.wrong]


def check(examples: Sequence[Example]) -> None:
    """Raises InvalidInput for the first example that nothing can be learned from. Needs no tokenizer."""
    if not any(not (example.anchor or example.validation) for example in examples):
        raise InvalidInput(
            "train.jsonl holds no signals", "A job needs at least one example that is neither anchor nor validation"
        )
    for example in examples:
        if example.prompt is None and (not example.messages or example.messages[-1].get("role") != "assistant"):
            raise InvalidInput(f"example {example.id!r} does not end with an assistant's message")
        if not _response_text(example).strip():
            raise InvalidInput(f"example {example.id!r} has an empty response", "There is nothing to learn from it")


def prepare(
    examples: Sequence[Example], tokenizer: Any, stops: frozenset[int], max_tokens: int, objective: Objective = "sft"
) -> Examples:
    """Tokenises ``examples`` with a Hugging Face tokenizer.

    ``stops``: tokens that end a turn; a response that ends in none gets the tokenizer's own. One longer than
    ``max_tokens`` loses the beginning of its prompt, never its response; too long a wrong answer loses its end.
    ``objective`` says what a wrong answer is taken for: with sft for nothing, with sft+dpo for the worse of a pair,
    with dpo for that alone.
    """
    signals: list[Tokens] = []
    anchors: list[Tokens] = []
    validation: list[Tokens] = []
    cut = left_out = 0
    for example in examples:
        whole = _tokens(example, tokenizer, stops, objective)
        fitted = _fit(whole, max_tokens, tokenizer.bos_token_id)
        if fitted is None:
            left_out += 1
            continue
        cut += len(fitted) < len(whole)
        if example.anchor and example.prompt is not None:
            fitted = _everywhere(fitted)
        (anchors if example.anchor else validation if example.validation else signals).append(fitted)
    if not signals:
        raise InvalidInput(
            f"no response fits into {max_tokens} tokens", "Raise training.max_tokens in genome.toml, or shorten them"
        )
    return Examples(signals, anchors, cut, left_out, validation)


def _everywhere(anchor: Tokens) -> Tokens:
    """An anchor whose prompt a model said as well: its teacher is followed wherever something is predicted."""
    return replace(anchor, prompt=anchor.prompt[:1], response=[*anchor.prompt[1:], *anchor.response])


def context_tokens(base: Path) -> int:
    """Longest sequence the base was made for; practically unlimited where its config does not say."""
    config = json.loads((base / "config.json").read_bytes())
    return int((config.get("text_config") or config).get("max_position_embeddings") or sys.maxsize)


def stop_tokens(base: Path, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a turn of this base: the tokenizer's, and those its generation stops at."""
    stops = {tokenizer.eos_token_id}
    for name in ("generation_config.json", "config.json"):
        if (base / name).is_file():
            value = json.loads((base / name).read_bytes()).get("eos_token_id")
            stops.update(value if isinstance(value, list) else [value])
    stops.discard(None)
    if not stops:
        raise InvalidInput(f"the base at {base} has no end-of-sequence token", "Name one in its tokenizer_config.json")
    return frozenset(stops)


def _response_text(example: Example) -> str:
    text = example.messages[-1].get("content") if example.prompt is None else example.response
    return text or ""


def _tokens(example: Example, tokenizer: Any, stops: frozenset[int], objective: Objective) -> Tokens:
    prompt, response = _answered(example, tokenizer, stops)
    of_parent = example.teacher == "parent"
    if objective == "sft" or example.rejected is None:
        return Tokens(prompt, response, example.weight, of_parent=of_parent)
    corrected = example.model_copy(
        update={
            "messages": [*example.messages[:-1], {"role": "assistant", "content": example.rejected}],
            "response": example.rejected,
        }
    )
    wrong = Wrong(_answered(corrected, tokenizer, stops)[1])
    return Tokens(prompt, response, example.weight, learned=objective != "dpo", wrong=wrong)


def _answered(example: Example, tokenizer: Any, stops: frozenset[int]) -> tuple[list[int], list[int]]:
    """Prompt and response."""
    if example.prompt is None:
        prompt, whole = _render(example, tokenizer)
    else:
        prompt, whole = example.prompt, example.prompt + _response_text(example)
    prompt_tokens, tokens = _encode(tokenizer, prompt), _encode(tokenizer, whole)
    if not prompt_tokens:
        raise InvalidInput(f"example {example.id!r} has an empty prompt", "A response needs something to follow")
    if tokens[: len(prompt_tokens)] == prompt_tokens:
        response = tokens[len(prompt_tokens) :]
    else:  # a token straddles the border; when serving, the prompt is tokenised by itself
        response = _encode(tokenizer, whole[len(prompt) :])
    return prompt_tokens, _ended(response, tokenizer, stops)


def _render(example: Example, tokenizer: Any) -> tuple[str, str]:
    """Text of the prompt as it is served, and of the prompt with its answer."""
    try:
        prompt = tokenizer.apply_chat_template(example.messages[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(example.messages, tokenize=False)
    except Exception as error:  # templates are programs: what they raise is theirs to choose
        raise InvalidInput(f"example {example.id!r} cannot be rendered by the base's chat template: {error}") from error
    # A template that tells the last turn apart otherwise: what is served is the prompt, so the answer goes after it.
    return prompt, whole if whole.startswith(prompt) else prompt + _response_text(example)


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _ended(response: list[int], tokenizer: Any, stops: frozenset[int]) -> list[int]:
    """``response`` up to the token that ends its turn. Whitespace a template puts after it is never generated."""
    ends = [index for index, token in enumerate(response) if token in stops]
    if ends and not tokenizer.decode(response[ends[-1] + 1 :]).strip():
        return response[: ends[-1] + 1]
    return [*response, tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(stops)]


def _fit(tokens: Tokens, max_tokens: int, beginning: int | None) -> Tokens | None:
    """``tokens`` within ``max_tokens``; None if not even the response and one token before it fit.

    A beginning-of-sequence token stays first: models lean on it. The right answer alone says how much of the prompt is
    kept, since both are learned; a wrong one that is longer loses its end.
    """
    room = max_tokens - len(tokens.response)
    if room < 1:
        return None
    if room < len(tokens.prompt):
        head = tokens.prompt[:1] if tokens.prompt[0] == beginning else []
        tokens = replace(tokens, prompt=[*head, *tokens.prompt[len(tokens.prompt) - (room - len(head)) :]])
    if tokens.wrong:
        begins = tokens.wrong.response[: max_tokens - len(tokens.prompt)]
        tokens = replace(tokens, wrong=replace(tokens.wrong, response=begins))
    return tokens

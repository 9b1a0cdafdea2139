"""Does a way of decoding agree with the library's own generate? Asked once, at start, of the model that will serve."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from inference_worker.engine import Question

NEW_TOKENS = 4
PROMPT_LENGTHS = (3, 9)
LONGEST_WINDOW = 1024
"""Tokens. A prompt reaches past a sliding window up to this; a longer one would take too long at start."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}
"""Largest difference between logits, relative to the largest logit."""


class Decoder(Protocol):
    def open(self, terms: Any) -> Any: ...
    def close(self, row: Any) -> None: ...
    def forward(self, work: Any) -> torch.Tensor: ...
    def score(self, questions: Any) -> Any: ...


def disagreement(decoder: Decoder, model: Any, context_tokens: int) -> str:
    """What differs between ``decoder`` and generate, or "" if nothing does."""
    references = [_generate(model, prompt) for prompt in _prompts(model, context_tokens)]
    try:
        worst = max(_decoded(decoder, references), _scored(decoder, references))
    except Exception as error:  # whatever an unknown architecture raises, it means the same here
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return "" if worst <= TOLERANCE[model.dtype] else f"logits differ by {worst:.1e} of the largest"


Reference = tuple[list[int], list[int], torch.Tensor]
"""A prompt, the tokens generate went on with, and their logits [new, vocabulary]."""


def _prompts(model: Any, context_tokens: int) -> list[list[int]]:
    config = model.config.get_text_config()
    lengths = list(PROMPT_LENGTHS)
    for name in ("sliding_window", "attention_chunk_size"):
        window = getattr(config, name, None)
        if window and window <= LONGEST_WINDOW:
            lengths.append(window + 2)
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(config.vocab_size, (length,), generator=generator).tolist()
        for length in lengths
        if length + NEW_TOKENS <= context_tokens
    ]


def _generate(model: Any, prompt: list[int]) -> Reference:
    output = model.generate(
        torch.tensor([prompt], device=model.device),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return prompt, output.sequences[0, len(prompt) :].tolist(), torch.stack([step[0] for step in output.logits])


def _decoded(decoder: Decoder, references: list[Reference]) -> float:
    """Largest relative difference when the rows are decoded together, the last one two tokens ahead."""
    rows = [decoder.open(()) for _ in references]
    logits: list[list[torch.Tensor]] = [[] for _ in references]

    def advance(numbers: list[int]) -> None:
        work = []
        for number in numbers:
            prompt, new, _ = references[number]
            made = len(logits[number])
            work.append((rows[number], new[made - 1 : made] if made else prompt))
        for number, found in zip(numbers, decoder.forward(work), strict=True):
            logits[number].append(found)

    everyone = list(range(len(rows)))
    for _ in range(2):
        advance(everyone[-1:])
    if everyone[:-1]:
        advance(everyone[:-1])
    while len(logits[-1]) < NEW_TOKENS:
        advance(everyone)
    for row in rows:
        decoder.close(row)
    return max(
        _difference(torch.stack(found), expected[: len(found)])
        for found, (_, _, expected) in zip(logits, references, strict=True)
    )


def _scored(decoder: Decoder, references: list[Reference]) -> float:
    """Largest relative difference when each reply is scored twice behind one prompt."""
    questions = [Question((), tuple(prompt), (tuple(new), tuple(new))) for prompt, new, _ in references]
    worst = 0.0
    for answers, (_, new, logits) in zip(decoder.score(questions), references, strict=True):
        expected = logits.float().log_softmax(1)[range(len(new)), new]
        for answer in answers:
            worst = max(worst, _largest(torch.tensor(answer.logprobs) - expected.cpu()))
    return worst / max(logits.abs().max().item() for _, _, logits in references)


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return _largest(found - expected) / expected.abs().max().item()


def _largest(difference: torch.Tensor) -> float:
    """The largest absolute value; infinite where one is no number, which ``max`` would overlook."""
    return difference.abs().nan_to_num(nan=torch.inf).max().item()

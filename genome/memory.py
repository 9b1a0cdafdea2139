"""How much memory a training takes, and how it is made to fit: pure functions of the base, the settings and the work.

What is counted, in bytes. Let a number be a weight, an activation or a gradient; a pass is one forward and backward.

- the process: interpreter and libraries, before the base is loaded;
- the weights of the frozen base, in the type the trainer keeps them in; quantised ones as they lie on disk;
- the adapter: its factors, their average, their gradients and AdamW's two moments (Loshchilov & Hutter 2019), in
  float32; of the adapters applied beside it the factors alone, in float32 too;
- the activations of a pass, for every token of it. All layers' are kept for the way back; with gradient checkpointing
  (Chen et al. 2016) only what enters each layer, and one layer's at a time;
- the logits at response positions: what is kept of them, and their gradients. Anchors have them at every token that a
  model said; before the first step a teacher's are measured, in passes as large, with nothing kept for a way back.

A training that does not fit is made smaller before it is refused: first by passes of fewer tokens, which cost little,
then by gradient checkpointing, which costs a second forward. Both leave the adapter as it would be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genome import training
from genome.shapes import Shape
from genome.training import Example, TrainingSettings

PASS_TOKENS_VARIABLE, CHECKPOINTING_VARIABLE = "GENOME_PASS_TOKENS", "GENOME_GRADIENT_CHECKPOINTING"
"""Environment variables by which a trainer is told what was chosen: a number, and 1 or 0."""
WHOLE_PASS, SMALLEST_PASS = 4096, 128
"""Tokens of a pass, padding included, where there is memory enough, and where there is least."""
TEACHER_BYTES = 256 * 8 + 4
"""Of a teacher's distribution at one token: its likeliest tokens with their log probabilities, and the rest."""
LOGITS = 4
"""Arrays as large as a pass's logits that there are at once: they, their logarithms and the gradients of both."""
MIB = 1 << 20
BYTES_PER_TOKEN = 2.5
"""Of text in UTF-8, to tell tokens without a tokenizer: a small vocabulary has so many in English, a large one four."""
TURN_TOKENS = 16
"""What a chat template puts around a message, at most."""


@dataclass(frozen=True)
class Library:
    """What a trainer takes besides what follows from the base."""

    process_bytes: int
    """Of a process that has imported it; in the host's memory."""
    number_bytes: float
    """Of a weight and of an activation."""
    four_bits: bool = False
    """Whether linear layers are quantised on loading."""
    scores: bool = False
    """Whether attention keeps its scores for the way back: tokens times the longest example, for every head."""
    padded: bool = True
    """Whether all rows of a pass get the length of its longest."""
    measured: int = 2
    """Arrays as large as the logits where a teacher's likeliest tokens are looked for."""
    slack: float = 1.0
    """What its allocator takes for a byte of activations."""
    beside: int = 0
    """Ranks of the adapters that it applies beside the one that learns, added up."""
    joined: bool = False
    """Whether a pass lays their factors and the learning one's together, and keeps that for the way back."""


@dataclass(frozen=True)
class Step:
    """Tokens of a step's signals, or of its anchors, where they are the longest: all, with padding, and with logits."""

    tokens: int = 0
    padded: int = 0
    responses: int = 0


@dataclass(frozen=True)
class Work:
    """The largest step there may be; signals and anchors are passed one after the other."""

    longest: int
    """Tokens of an example, with both answers of a pair. It is never split, so no pass is smaller."""
    signals: Step
    anchors: Step = Step()
    held: int = 0
    """Tokens of the whole job at which a teacher's distribution is kept."""


@dataclass(frozen=True)
class Need:
    """Bytes at the highest point."""

    process: int
    weights: int
    adapter: int
    activations: int
    logits: int

    @property
    def passes(self) -> int:
        """What smaller passes make less of."""
        return self.activations + self.logits

    def split(self, accelerator: bool) -> tuple[int, int]:
        """In the host's memory and in an accelerator's own, through whose host's the weights go on loading."""
        model = self.weights + self.adapter + self.activations + self.logits
        return (self.process + self.weights, model) if accelerator else (self.process + model, 0)


@dataclass(frozen=True)
class Room:
    """Bytes a training may take."""

    host: int
    accelerator: int | None = None
    """Of a memory of its own; None: there is none, or it is the host's."""
    slack: tuple[float, float] = (1.0, 1.0)
    """What a need must fit in so many times: in the host's memory, and in the accelerator's."""
    passes: float = math.inf
    """What passes may take of it."""

    def holds(self, of: Need) -> bool:
        host, accelerator = (
            size * slack for size, slack in zip(of.split(self.accelerator is not None), self.slack, strict=True)
        )
        return host <= self.host and accelerator <= (self.accelerator or 0) and of.passes <= self.passes


@dataclass(frozen=True)
class Plan:
    """How the passes of a training are cut, and what it then needs."""

    pass_tokens: int
    gradient_checkpointing: bool
    need: Need

    @property
    def environment(self) -> dict[str, str]:
        """What tells a trainer."""
        return {
            PASS_TOKENS_VARIABLE: str(self.pass_tokens),
            CHECKPOINTING_VARIABLE: str(int(self.gradient_checkpointing)),
        }


def need(shape: Shape, settings: TrainingSettings, work: Work, library: Library, cut: tuple[int, bool]) -> Need:
    """``cut``: tokens of a pass, and whether with gradient checkpointing."""
    checkpointing, number = cut[1], library.number_bytes
    joined = settings.rank + (library.beside if library.joined else 0)
    of_layer = shape.kept + joined * shape.factors / (2 * shape.layers * max(shape.hidden, 1))
    if library.scores:
        of_layer += 1.5 * shape.heads * work.longest
    kept = shape.layers * shape.hidden + 2 * of_layer if checkpointing else shape.layers * of_layer
    of_token = library.slack * number * (kept + of_layer), library.slack * number * of_layer
    activations, logits = max(_passes(work, library, max(cut[0], work.longest), of_token, shape.vocabulary), key=sum)
    quantised = shape.linear if library.four_bits else 0
    own = 4 * (5 if settings.average_fraction else 4) * settings.rank
    copies = number * joined / (shape.layers if checkpointing else 1) if joined > settings.rank else 0
    return Need(
        process=library.process_bytes + TEACHER_BYTES * work.held,
        weights=int((shape.floats - quantised) * number + quantised * 0.5625 + shape.packed_bytes),
        adapter=int((own + 4 * library.beside + copies) * shape.factors),
        activations=activations,
        logits=logits,
    )


def _passes(
    work: Work, library: Library, largest: int, of_token: tuple[float, float], vocabulary: int
) -> Iterator[tuple[int, int]]:
    """Activations and logits of a pass over signals, over anchors, and to measure teachers. ``of_token``: bytes of its
    activations, with a way back and without."""
    for step in (work.signals, work.anchors):
        tokens = min(largest, step.padded if library.padded else step.tokens)
        yield int(tokens * of_token[0]), LOGITS * 4 * min(tokens, step.responses) * vocabulary
    measured = min(largest, work.held)
    yield int(measured * of_token[1]), library.measured * 4 * measured * vocabulary


def plan(shape: Shape, settings: TrainingSettings, work: Work, library: Library, room: Room) -> Plan:
    """The first cut that fits into ``room``; the most frugal one, if none does."""
    for cut in cuts(work.longest):
        found = Plan(*cut, need(shape, settings, work, library, cut))
        if room.holds(found.need):
            break
    return found


def cuts(longest: int) -> Iterator[tuple[int, bool]]:
    """What is tried, in order: whole passes, smaller ones; then the same with gradient checkpointing."""
    sizes = [WHOLE_PASS]
    while sizes[-1] > max(SMALLEST_PASS, longest):
        sizes.append(max(sizes[-1] // 2, longest))
    return ((tokens, checkpointing) for checkpointing in (False, True) for tokens in sizes)


def work(examples: Sequence[Example], settings: TrainingSettings) -> Work:
    """The largest step of a job, with tokens guessed from bytes, so that no tokenizer is loaded for it.

    Both answers of a pair are in one pass. A guess that is too low costs a stop at a checkpoint, one too high a pass
    cut smaller than need be.
    """
    lengths: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    pairs = training.objective(settings, examples) != "sft"
    for example in examples:
        answers = [example.response or (example.messages[-1]["content"] if example.messages else "")]
        if pairs and example.rejected is not None:
            answers.append(example.rejected)
        ends = [min(_tokens(answer), settings.max_tokens) for answer in answers]
        prompt = _tokens(example.prompt or "") + sum(
            TURN_TOKENS + _tokens(turn.get("content", "")) for turn in example.messages[:-1]
        )
        whole = sum(min(prompt + end, settings.max_tokens) for end in ends)
        said = example.anchor and example.prompt is not None  # by a model: it is held everywhere
        lengths[example.anchor].append((whole, whole if said else sum(ends)))
    signals, anchors = lengths[False], lengths[True] if settings.anchor_weight else []
    steps = max(1, math.ceil(len(signals) / settings.batch_size))
    return Work(
        longest=max((whole for whole, _ in [*signals, *anchors]), default=0),
        signals=_step(signals, settings.batch_size),
        anchors=_step(anchors, math.ceil(len(anchors) / steps)),
        held=sum(places for _, places in anchors),
    )


def _step(lengths: list[tuple[int, int]], rows: int) -> Step:
    """Of so many rows at most. ``lengths``: tokens of each, and how many of them have logits."""
    wholes, responses = (sorted(each, reverse=True)[:rows] for each in zip(*(lengths or [(0, 0)]), strict=True))
    return Step(sum(wholes), len(wholes) * max(wholes, default=0), sum(responses))


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)

"""Choosing a token from logits, telling how likely it was, and what a request may say about both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genome.errors import InvalidInput

LONGEST_STOP_STRING = 256
LARGEST_PENALTY = 100.0
"""Far beyond what is of use, and far from where divided logits would overflow."""
MOST_LOGPROBS = 20


@dataclass(frozen=True)
class Sampling:
    """How a reply is decoded."""

    temperature: float = 0.0
    """0: the likeliest token."""
    top_p: float = 1.0
    """Smallest set of tokens with at least this probability; 1: all."""
    top_k: int = 0
    """So many likeliest tokens; 0: all."""
    seed: int | None = None
    max_tokens: int = 0
    """0: the worker's default."""
    stop: tuple[str, ...] = ()
    """The reply ends before the first of these."""
    keep_special_tokens: bool = False
    min_p: float = 0.0
    """Tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024); 0: all."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that are there already, multiplies the negative (Keskar et al. 2019)."""
    logprobs: int | None = None
    """Tell each token's log-probability, and those of so many likeliest tokens; None: tell none."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InvalidInput(f"a temperature of {self.temperature}", "Give 0 for greedy decoding, or more")
        if not 0 < self.top_p <= 1:
            raise InvalidInput(f"a top_p of {self.top_p}", "Give a number above 0 and at most 1")
        if self.top_k < 0 or self.max_tokens < 0:
            raise InvalidInput("top_k and max_tokens cannot be negative", "Leave them out for the default")
        if not 0 <= self.min_p <= 1:
            raise InvalidInput(f"a min_p of {self.min_p}", "Give 0 for none, or a number of at most 1")
        if not 1 / LARGEST_PENALTY <= self.repetition_penalty <= LARGEST_PENALTY:
            raise InvalidInput(
                f"a repetition_penalty of {self.repetition_penalty}",
                f"Give 1 for none, or a number from {1 / LARGEST_PENALTY:g} to {LARGEST_PENALTY:g}",
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise InvalidInput(f"logprobs of {self.logprobs} tokens", f"Give 0 to {MOST_LOGPROBS}, or leave it out")
        if any(not stop or len(stop) > LONGEST_STOP_STRING for stop in self.stop):
            raise InvalidInput(f"a stop string has 1 to {LONGEST_STOP_STRING} characters", "Leave out the others")


@dataclass(frozen=True)
class Logprobs:
    """Natural log-probabilities at one place of a reply, in the model's own distribution."""

    chosen: float
    likeliest: tuple[tuple[int, float], ...]
    """Tokens with theirs, likeliest first."""


class Sampler:
    """Chooses the tokens of one reply. The same seed chooses the same tokens, whatever else is in the batch."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))

    @property
    def plain(self) -> bool:
        """It is always the model's likeliest token: nothing needs choosing."""
        return self._sampling.temperature == 0 and self._sampling.repetition_penalty == 1

    @property
    def reads_logits(self) -> bool:
        """Whether `choose` or `logprobs` will be needed: getting logits off a device costs time."""
        return not self.plain or self._sampling.logprobs is not None

    def logprobs(self, logits: np.ndarray, token: int) -> Logprobs | None:
        """What the model thought of ``token`` and of the likeliest ones, if that was asked."""
        if self._sampling.logprobs is None:
            return None
        shifted = logits.astype(np.float64) - logits.max()
        logprobs = shifted - np.log(np.exp(shifted).sum())
        count = min(self._sampling.logprobs, len(logprobs))
        tokens = np.argpartition(-logprobs, count - 1)[:count] if count else np.empty(0, dtype=np.intp)
        ordered = tokens[np.argsort(-logprobs[tokens], kind="stable")]
        likeliest = tuple((int(each), float(logprobs[each])) for each in ordered)
        return Logprobs(float(logprobs[token]), likeliest)

    def choose(self, logits: np.ndarray, *so_far: Sequence[int]) -> int:
        """One token, from logits [vocabulary] and the tokens that are there already."""
        logits = self._penalized(logits.astype(np.float64), so_far)
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        shares = np.exp((logits - logits.max()) / self._sampling.temperature)
        tokens = self._likeliest(shares)
        cumulative = shares[tokens].cumsum()
        draw = self._random.random() * cumulative[-1]
        return int(tokens[np.searchsorted(cumulative, draw, side="right")])

    def _penalized(self, logits: np.ndarray, so_far: tuple[Sequence[int], ...]) -> np.ndarray:
        penalty = self._sampling.repetition_penalty
        if penalty != 1:
            there = list(set().union(*so_far))
            found = logits[there]
            logits[there] = np.where(found > 0, found / penalty, found * penalty)
        return logits

    def _likeliest(self, shares: np.ndarray) -> np.ndarray:
        """The tokens that top_k, top_p and min_p leave, in this order, from shares [vocabulary] of any sum."""
        top_k, top_p, min_p = self._sampling.top_k, self._sampling.top_p, self._sampling.min_p
        tokens = np.arange(len(shares))
        if 0 < top_k < len(tokens):
            tokens = np.sort(np.argpartition(shares, -top_k)[-top_k:])
        if top_p < 1:
            kept = shares[tokens]
            # All below this share together are less than 1 - top_p, so none of them is needed: sorting few is fast.
            tokens = tokens[kept >= kept.sum() * (1 - top_p) / len(kept)]
            tokens = tokens[np.argsort(-shares[tokens], kind="stable")]
            enough = np.searchsorted(shares[tokens].cumsum(), top_p * kept.sum())
            tokens = tokens[: int(enough) + 1]
        if min_p > 0:
            tokens = tokens[shares[tokens] >= min_p * shares.max()]
        return tokens

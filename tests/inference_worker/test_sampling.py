"""Promises of sampling: seeds repeat, limits hold, nonsense is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor
from worker_runs import Steps, generation

from genome.errors import InvalidInput
from inference_worker.engine import Engine
from inference_worker.sampling import Sampler, Sampling

LOGITS = np.log(np.array([0.05, 0.5, 0.3, 0.15], dtype=np.float32))


def drawn(count: int = 4000, **settings: Any) -> np.ndarray:
    """Shares of the four tokens among so many choices."""
    sampler = Sampler(Sampling(temperature=1.0, seed=7, **settings))
    return np.bincount([sampler.choose(LOGITS) for _ in range(count)], minlength=4) / count


def test_tokens_are_drawn_with_their_probabilities() -> None:
    """Without limits at temperature 1 each token comes as often as the model says."""
    assert drawn() == pytest.approx([0.05, 0.5, 0.3, 0.15], abs=0.03)


def test_top_k_and_top_p_leave_the_likeliest() -> None:
    """top_k keeps that many; top_p the fewest that together have the probability."""
    assert drawn(top_k=2) == pytest.approx([0, 0.625, 0.375, 0], abs=0.03)
    assert drawn(top_p=0.6) == pytest.approx([0, 0.625, 0.375, 0], abs=0.03)
    assert drawn(top_p=0.4) == pytest.approx([0, 1, 0, 0])


def test_min_p_measures_against_the_likeliest_after_the_temperature() -> None:
    """It keeps the tokens the library keeps, at temperatures that make the distribution flat or steep."""
    logits = np.random.default_rng(3).normal(0, 3, 200).astype(np.float32)
    for temperature in (0.5, 1.0, 3.0):
        sampler = Sampler(Sampling(temperature=temperature, min_p=0.2, seed=1))
        drawn = {sampler.choose(logits) for _ in range(3000)}
        warped = MinPLogitsWarper(0.2)(None, torch.tensor(logits)[None] / temperature)
        assert drawn == set(torch.isfinite(warped[0]).nonzero().flatten().tolist())


def test_a_repetition_penalty_falls_on_the_tokens_that_were_there() -> None:
    """Penalized logits are the library's: tokens of prompt and reply, once each, positive or negative."""
    logits = np.random.default_rng(4).normal(0, 3, 50).astype(np.float32)
    prompt, written = (3, 3, 7, 20), [int(logits.argmax()), int(logits.argmin())]
    there = torch.tensor([[*prompt, *written]])
    for penalty in (0.5, 1.3, 4.0):
        expected = RepetitionPenaltyLogitsProcessor(penalty)(there, torch.tensor(logits)[None])[0]
        sampler = Sampler(Sampling(repetition_penalty=penalty))
        assert sampler._penalized(logits.astype(np.float64), (prompt, written)) == pytest.approx(expected.numpy())
        assert sampler.choose(logits, prompt, written) == int(expected.argmax())


def test_a_penalized_greedy_reply_is_the_librarys(engine: Engine, steps: Steps, library_model: Any) -> None:
    """Greedy decoding with a repetition penalty writes what the library's generate writes with it."""
    prompt = engine.tokenizer.encode("red red blue red blue red")
    request = generation(prompt, 16, sampling=Sampling(repetition_penalty=1.8))
    plain = generation(prompt, 16)
    steps.submit(request)
    steps.submit(plain)
    steps.step_until_done(request, plain)
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": 16, "do_sample": False, "repetition_penalty": 1.8}
    written = library_model().generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :]
    assert request.written[: len(written)] == written.tolist()
    assert request.written != plain.written


def test_logprobs_are_the_models_own_whatever_is_sampled() -> None:
    """They sum to 1 as probabilities over the vocabulary, likeliest first, before temperature, penalty and limits."""
    sampler = Sampler(Sampling(temperature=9.0, top_k=1, repetition_penalty=5.0, logprobs=20))
    found = sampler.logprobs(LOGITS, 3)
    assert found is not None
    assert found.chosen == pytest.approx(np.log(0.15), abs=1e-6)
    assert [token for token, _ in found.likeliest] == [1, 2, 3, 0]
    assert sum(np.exp(logprob) for _, logprob in found.likeliest) == pytest.approx(1)
    alone = Sampler(Sampling(logprobs=0)).logprobs(LOGITS, 3)
    assert alone is not None
    assert (alone.chosen, alone.likeliest) == (found.chosen, ())


def test_logits_are_read_only_where_they_are_needed() -> None:
    """A greedy reply without penalty and logprobs never takes logits off the device."""
    assert not Sampler(Sampling(top_k=3)).reads_logits
    for settings in ({"temperature": 1.0}, {"repetition_penalty": 1.1}, {"logprobs": 0}):
        assert Sampler(Sampling(**settings)).reads_logits


def test_a_seed_gives_the_same_reply_whatever_shares_the_batch(engine: Engine, steps: Steps) -> None:
    """The same seed writes the same tokens alone and among others; another seed writes others."""

    def seeded(seed: int) -> Any:
        return generation((5, 9, 40), 16, sampling=Sampling(temperature=100.0, seed=seed))

    alone = seeded(1)
    steps.submit(alone)
    steps.step_until_done(alone)
    crowd = [seeded(1), seeded(2), generation((7, 8), 16), generation((9,) * 30, 16)]
    for request in crowd:
        steps.submit(request)
        steps.step()
    steps.step_until_done(*crowd)
    assert crowd[0].written == alone.written
    assert crowd[1].written != alone.written


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("top_k", -1),
        ("logprobs", -1),
        ("logprobs", 21),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", float("nan")),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", float("inf")),
        ("max_tokens", -1),
        ("stop", ("",)),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: Any) -> None:
    """A setting outside its range is an error, not a guess."""
    with pytest.raises(InvalidInput):
        Sampling(**{name: value})

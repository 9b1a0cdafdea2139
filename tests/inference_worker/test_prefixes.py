"""Promises of the prefix cache and of long or varied questions: computed once, never across versions."""

from __future__ import annotations

from typing import Any

import pytest
from test_scheduler import Counting
from worker_runs import Foundry, RunningWorker, Steps, close_all, generation

from genome import lora
from genome.v1 import inference_pb2 as pb
from inference_worker.engine import Engine, Question, Term
from inference_worker.requests import Scoring

SYSTEM = "You answer briefly. You never guess. You are asked about trains, ships and planes by people in a hurry."
LONG = tuple(5 + index % 300 for index in range(400))


def messages(question: str, *named: tuple[str, str]) -> list[pb.Message]:
    parts = [pb.Message(role="user", content=text, name=name) for name, text in named]
    return [pb.Message(role="system", content=SYSTEM), *parts, pb.Message(role="user", content=question)]


async def cached(worker: RunningWorker, question: str, **target: Any) -> tuple[str, int]:
    """A reply, and how many tokens of its prompt the prefix cache had."""
    request = pb.GenerateRequest(messages=messages(question), sampling=pb.Sampling(max_tokens=8), **target)
    replies = [message async for message in worker.stub.Generate(request)]
    return "".join(reply.text for reply in replies), replies[-1].usage.cached_prompt_tokens


async def test_a_shared_beginning_is_computed_once_per_stack_and_never_across_versions(
    worker: RunningWorker, foundry: Foundry
) -> None:
    """The second prompt takes over the first one's beginning; after a swap it is computed anew; going back finds it."""
    await worker.load(foundry("one", seed=11), "ann/code-v1.0")
    first, had = await cached(worker, "when", route="ann/code")
    assert had == 0
    again, had = await cached(worker, "when", route="ann/code")
    assert again == first
    assert had > 16
    await worker.load(foundry("two", seed=12), "ann/code-v1.1", replace_id="ann/code-v1.0")
    swapped, had = await cached(worker, "when", route="ann/code")
    assert had == 0
    assert swapped != first
    _, had = await cached(worker, "when")
    assert had == 0
    old = pb.Stack(entries=[pb.Stack.Entry(adapter_id="ann/code-v1.0")])
    back, had = await cached(worker, "when", stack=old)
    assert had > 16
    assert back == first


def test_the_same_weights_at_another_alpha_are_another_stack(foundry: Foundry) -> None:
    """What the weights file does not say counts too: nothing computed at one scaling reaches the other."""
    one, two = (lora.read(foundry(f"alpha-{alpha}", seed=11, lora_alpha=alpha)) for alpha in (8, 16))
    assert one.digest == two.digest
    assert one.identity != two.identity


def test_prompts_that_begin_alike_are_not_computed_side_by_side(engine: Engine) -> None:
    """Of three prompts with one beginning that come together, one computes it and the others take it over."""
    counting = Counting(engine)
    steps = Steps(counting)  # type: ignore[arg-type]
    requests = [generation((*LONG[:100], 7, 8, last), 6) for last in (9, 10, 11)]
    for request in requests:
        steps.submit(request)
    steps.step_until_done(*requests)
    assert [request.recalled for request in requests] == [0, 102, 102]
    alone = [generation(request.prompt, 6) for request in requests]
    for request in alone:
        steps.submit(request)
        steps.step_until_done(request)
        steps.step()
    assert [request.written for request in requests] == [request.written for request in alone]


def test_the_cache_stays_within_its_memory_and_forgets_the_least_recently_used(engine: Engine) -> None:
    """With room for two beginnings, the third pushes out the one that was not used since."""
    steps = Steps(engine, prefix_bytes=0)
    row = engine.open(())
    engine.forward([(row, LONG[:64])])
    size = engine.snapshot(row, 64).memory_bytes
    engine.close(row)
    steps = Steps(engine, prefix_bytes=int(2.9 * size))

    def ask(start: int) -> int:
        request = generation((start, *LONG[:63]), 1)
        steps.submit(request)
        steps.step_until_done(request)
        return request.recalled

    assert [ask(start) for start in (300, 301, 300, 302, 300, 301)] == [0, 0, 63, 0, 63, 0]
    too_long = generation((303, *LONG[:300]), 1)
    steps.submit(too_long)
    steps.step_until_done(too_long)
    assert [ask(start) for start in (303, 301)] == [0, 63]
    close_all(steps)


async def test_scores_without_named_parts_are_those_of_a_context_without_them(worker: RunningWorker) -> None:
    """One call gives what three calls with shortened contexts give."""
    named = (("hint", "The train leaves at nine."), ("noise", "Ships float."))
    ask = pb.ScoreRequest.Continuation(text="at nine")
    whole = pb.ScoreRequest.Item(
        messages=messages("when", *named),
        continuations=[ask],
        without=[pb.ScoreRequest.Parts(names=["hint"]), pb.ScoreRequest.Parts(names=["hint", "noise"])],
    )
    (item,) = (await worker.stub.Score(pb.ScoreRequest(items=[whole]))).items
    found = [item.continuations[0].logprob, *(each.continuations[0].logprob for each in item.without)]
    expected = []
    for parts in (named, named[1:], ()):
        shortened = pb.ScoreRequest.Item(messages=messages("when", *parts), continuations=[ask])
        (item,) = (await worker.stub.Score(pb.ScoreRequest(items=[shortened]))).items
        expected.append(item.continuations[0].logprob)
    assert found == pytest.approx(expected, abs=1e-3)
    assert len(set(expected)) == 3


def test_a_long_question_is_read_in_chunks_and_scored_as_in_one_piece(engine: Engine, foundry: Foundry) -> None:
    """Beside it a reply gets a token every step; the scores are those of a single forward, under an adapter too."""
    term = Term(engine.load(lora.read(foundry("mild", seed=11, strength=0.1))), 1.0)
    question = Question((term,), LONG * 2, (LONG[:300], (9, 10, 11)))
    (expected,) = engine.score([question])
    steps = Steps(engine)
    scoring, reply = Scoring((question,), background=True), generation((5, 6, 7), 12)
    steps.submit(reply)
    steps.submit(scoring)
    steps.step()
    while not scoring.answers:
        before = len(reply.written)
        steps.step()
        assert len(reply.written) == min(before + 1, 12)
    for found, wanted in zip(scoring.answers[0], expected, strict=True):
        assert found.logprobs == pytest.approx(wanted.logprobs, abs=1e-3)
        assert found.greedy == wanted.greedy
    steps.step_until_done(reply, scoring)

"""Promises of the running worker over gRPC: one generation a reply, swaps nobody notices, honest answers."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import grpc
import pytest
from worker_runs import Foundry, RunningWorker, running

from genome import lora
from genome.errors import Busy
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc
from inference_worker.engine import Engine, Question

OLD, NEW = "ann/code-v1.0", "ann/code-v1.1"
QUESTIONS = ["turn on the light", "what is 12", "echo blue green", "hello"]


async def test_no_request_fails_or_mixes_while_adapters_are_swapped(worker: RunningWorker, foundry: Foundry) -> None:
    """Under a stream of requests and swaps, every reply equals what the generation it names says alone."""
    paths = {OLD: foundry("one", seed=11), NEW: foundry("two", seed=12)}
    alone: dict[tuple[str, str], str] = {}
    for adapter_id, path in paths.items():
        await worker.load(path, adapter_id, standby=True)
        stack = pb.Stack(entries=[pb.Stack.Entry(adapter_id=adapter_id)])
        for question in QUESTIONS:
            alone[adapter_id, question] = (await worker.ask(question, stack=stack))[0]
    assert all(alone[OLD, question] != alone[NEW, question] for question in QUESTIONS)
    await worker.load(paths[OLD], OLD)
    replies: list[tuple[str, str, list[pb.GenerateResponse]]] = []
    answered, swapped_enough = asyncio.Semaphore(0), asyncio.Event()

    async def client(question: str) -> None:
        while not swapped_enough.is_set():
            replies.append((question, *await worker.ask(question, route="ann/code")))
            answered.release()

    generations = {}
    async with asyncio.TaskGroup() as clients:
        for question in QUESTIONS:
            clients.create_task(client(question))
        for number in range(20):
            new, old = (NEW, OLD) if number % 2 == 0 else (OLD, NEW)
            swapped = await worker.load(paths[new], new, replace_id=old, grace_seconds=0.0)
            generations[swapped.generation] = new
            worker.clock.run_out()
            for _ in range(3):  # clients go in step, four at a time: an even number would always swap between the same
                await answered.acquire()
        swapped_enough.set()
    by_adapter = defaultdict(int)
    for question, text, messages in replies:
        first, last = messages[0].served, messages[-1].served
        assert first == last
        (adapter,) = first.adapters
        assert adapter.id == generations.get(first.generation, OLD)
        assert text == alone[adapter.id, question]
        by_adapter[adapter.id] += 1
    assert set(by_adapter) == {OLD, NEW}


async def test_a_request_keeps_an_unloaded_adapter_to_its_end(worker: RunningWorker, foundry: Foundry) -> None:
    """An adapter unloaded during a reply answers it whole and leaves memory after the reply and the grace."""
    path = foundry("one", seed=11)
    await worker.load(path, OLD, standby=True)
    stack = pb.Stack(entries=[pb.Stack.Entry(adapter_id=OLD)])
    sampling = pb.Sampling(max_tokens=300, temperature=100.0, seed=1)
    request = pb.GenerateRequest(messages=[pb.Message(content="hello")], stack=stack, sampling=sampling)
    whole, _ = await worker.ask("hello", stack=stack, sampling=sampling)
    call = worker.stub.Generate(request)
    replies = aiter(call)
    text = (await anext(replies)).text
    unloaded = await worker.stub.UnloadAdapter(pb.UnloadAdapterRequest(adapter_id=OLD, grace_seconds=5))
    in_flight = unloaded.in_flight
    worker.clock.run_out()
    async for message in replies:
        text += message.text
    assert text == whole
    assert in_flight == 1
    info = await worker.adapter(OLD)
    assert info is not None
    assert info.state == pb.AdapterInfo.RETIRING
    assert [seconds for seconds, _ in worker.clock.waiting] == [5]
    worker.clock.run_out()
    assert await worker.adapter(OLD) is None


async def test_a_client_that_vanishes_gives_back_what_it_held(worker: RunningWorker, foundry: Foundry) -> None:
    """After a cancel, and after a deadline, no request and no lease is left."""
    await worker.load(foundry("one", seed=11), OLD)
    sampling = pb.Sampling(max_tokens=400, temperature=100.0)
    request = pb.GenerateRequest(messages=[pb.Message(content="hello")], route="ann/code", sampling=sampling)
    cancelled = worker.stub.Generate(request)
    await cancelled.read()
    cancelled.cancel()
    late = worker.stub.Generate(request, timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in late:
            pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    while (await worker.stub.GetServerInfo(pb.GetServerInfoRequest())).in_flight:
        pass
    info = await worker.adapter(OLD)
    assert info is not None
    assert info.in_flight == 0
    await worker.ask("hello", tokens=1)  # its step came after the cancels
    assert worker.steps._rows == []


async def test_a_reply_streams_and_accounts_for_itself(worker: RunningWorker) -> None:
    """The pieces are the text, the token ids are the tokens, and the last message has reason and usage."""
    text, messages = await worker.ask("echo blue", tokens=5, sampling=pb.Sampling(max_tokens=5))
    tokens = [token for message in messages for token in message.token_ids]
    assert text == worker.engine.tokenizer.decode(tokens, special=False)
    last = messages[-1]
    prompt = worker.engine.tokenizer.chat([{"role": "user", "content": "echo blue"}])
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(prompt), len(tokens))
    assert last.finish_reason in (pb.GenerateResponse.LENGTH, pb.GenerateResponse.STOP)
    assert all(message.finish_reason == 0 for message in messages[:-1])


async def test_a_stop_string_ends_the_reply_before_it(worker: RunningWorker) -> None:
    """The text is cut exactly before the stop string, with the reason STOP."""
    whole, _ = await worker.ask("echo blue green red")
    assert len(whole) > 6
    stop = whole[3:6]
    cut, messages = await worker.ask("echo blue green red", sampling=pb.Sampling(max_tokens=24, stop=[stop]))
    assert cut == whole[: whole.index(stop)]
    assert messages[-1].finish_reason == pb.GenerateResponse.STOP


async def test_a_text_prompt_is_taken_as_it_is(worker: RunningWorker) -> None:
    """Text that spells out the chat template is the same prompt as the messages."""
    info = await worker.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.user_turn
    assert info.user_turn_end
    sampling = pb.Sampling(max_tokens=24)
    spelled = pb.GenerateRequest(text=f"{info.user_turn}hello{info.user_turn_end}", sampling=sampling)
    messages = [message async for message in worker.stub.Generate(spelled)]
    assert "".join(message.text for message in messages) == (await worker.ask("hello"))[0]


async def test_scores_are_of_exactly_the_reply_and_its_end(worker: RunningWorker, base_path: Path) -> None:
    """A text continuation is scored with what ends the turn; the same token ids give the same score."""
    tokenizer = worker.engine.tokenizer
    tokens = tokenizer.answer([{"role": "user", "content": "hello"}], "blue")
    assert tokens == (*tokenizer.encode("blue"), next(iter(tokenizer.end_tokens)))
    forms = [
        pb.ScoreRequest.Continuation(text="blue"),
        pb.ScoreRequest.Continuation(token_ids=pb.ScoreRequest.TokenIds(ids=tokens)),
    ]
    prompt = tokenizer.chat([{"role": "user", "content": "hello"}])
    item = pb.ScoreRequest.Item(messages=[pb.Message(role="user", content="hello")], continuations=forms)
    spelled = pb.ScoreRequest.Item(text=tokenizer.decode(prompt, special=True), continuations=forms)
    scored = await worker.stub.Score(pb.ScoreRequest(items=[item, spelled], priority=pb.PRIORITY_BACKGROUND))
    answers = [answer for each in scored.items for answer in each.continuations]
    assert [answer.tokens for answer in answers] == [len(tokens)] * 4
    assert [answer.logprob for answer in answers] == pytest.approx([answers[0].logprob] * 4, abs=1e-4)
    assert sum(answers[0].token_logprobs) == pytest.approx(answers[0].logprob, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_logprobs_of_a_reply_are_the_scores_of_its_tokens(
    worker: RunningWorker, foundry: Foundry, temperature: float
) -> None:
    """One a token, equal to what Score says of the same tokens; asking for them changes no reply."""
    await worker.load(foundry("one", seed=11), OLD)
    settings = {"max_tokens": 12, "temperature": temperature, "seed": 5, "repetition_penalty": 1.2}
    plain, silent = await worker.ask("hello", route="ann/code", sampling=pb.Sampling(**settings))
    text, messages = await worker.ask("hello", route="ann/code", sampling=pb.Sampling(**settings, logprobs=3))
    tokens = [token for message in messages for token in message.token_ids]
    told = [logprob for message in messages for logprob in message.logprobs]
    assert text == plain
    assert not any(message.logprobs for message in silent)
    continuation = pb.ScoreRequest.Continuation(token_ids=pb.ScoreRequest.TokenIds(ids=tokens))
    item = pb.ScoreRequest.Item(messages=[pb.Message(content="hello")], continuations=[continuation])
    scored = await worker.stub.Score(pb.ScoreRequest(items=[item], route="ann/code"))
    assert [each.logprob for each in told] == pytest.approx(
        list(scored.items[0].continuations[0].token_logprobs), abs=1e-3
    )
    for token, each in zip(tokens, told, strict=True):
        first, *_ = each.alternatives
        assert len(each.alternatives) == 3
        assert first.logprob >= each.logprob
        assert all(other.logprob == each.logprob for other in each.alternatives if other.token_id == token)
        assert first.text == worker.engine.tokenizer.decode([first.token_id], special=True)


async def test_many_scores_come_in_order_and_equal_single_ones(worker: RunningWorker, engine: Engine) -> None:
    """Batches of questions of many lengths give each its own score, in the order asked."""
    texts = ["a" * length for length in range(1, 40)]
    items = [
        pb.ScoreRequest.Item(
            messages=[pb.Message(role="user", content=f"question {text}")],
            continuations=[pb.ScoreRequest.Continuation(text=answer) for answer in (text, "blue", "red green")],
        )
        for text in texts
    ]
    scored = await worker.stub.Score(pb.ScoreRequest(items=items))
    tokenizer = engine.tokenizer
    for index in (0, 7, 38):
        messages = [{"role": "user", "content": f"question {texts[index]}"}]
        answer = tokenizer.answer(messages, texts[index])
        found = scored.items[index].continuations[0]
        (alone,) = engine.score([Question((), tokenizer.chat(messages), (answer,))])
        assert list(found.token_logprobs) == pytest.approx(alone[0].logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.GenerateRequest(), "empty"),
        (pb.GenerateRequest(text="a", messages=[pb.Message(content="b")]), "not both"),
        (pb.GenerateRequest(text="a " * 2000), "context"),
        (pb.GenerateRequest(text="a", sampling=pb.Sampling(temperature=-1)), "temperature"),
        (pb.GenerateRequest(text="a", stack=pb.Stack(entries=[pb.Stack.Entry(adapter_id="x")])), "adapter id"),
    ],
    ids=["empty", "both", "too long", "temperature", "stack"],
)
async def test_a_request_that_cannot_be_served_says_why(worker: RunningWorker, request_: Any, words: str) -> None:
    """What is wrong with a request is answered with INVALID_ARGUMENT and a sentence."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.Generate(request_).read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


async def test_token_ids_that_are_none_are_refused(worker: RunningWorker) -> None:
    """A token the base does not have is the caller's mistake, not the engine's."""
    wrong = pb.ScoreRequest.Continuation(token_ids=pb.ScoreRequest.TokenIds(ids=[10**6]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.Score(pb.ScoreRequest(items=[pb.ScoreRequest.Item(text="a", continuations=[wrong])]))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_full_worker_says_so(engine: Engine, base_path: Path, tmp_path: Path) -> None:
    """Beyond rows and queue a request is refused with RESOURCE_EXHAUSTED and when to try again."""
    async with running(engine, base_path, (tmp_path,), tmp_path / "f.sock", max_rows=1, max_queue=1) as worker:
        sampling = pb.Sampling(max_tokens=400, temperature=100.0)
        request = pb.GenerateRequest(messages=[pb.Message(content="hello")], sampling=sampling)
        calls = [worker.stub.Generate(request) for _ in range(6)]
        results = await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
        for call in calls:
            call.cancel()
        refused = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
        assert refused
        assert {each.code() for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "Try again in 1 s" in (refused[0].details() or "")
        assert [each.trailing_metadata().get("grpc-retry-pushback-ms") for each in refused] == ["1000"] * len(refused)


async def test_a_client_with_a_retry_policy_waits_as_it_is_told(
    worker: RunningWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC's own retries go by the hint, not by the policy's backoff, and the request is answered."""
    submit, refused = worker.steps.submit, []

    def full_at_first(request: Any) -> None:
        if not refused:
            refused.append(request)
            raise Busy("full", "Try again", retry_seconds=0.1)
        submit(request)

    monkeypatch.setattr(worker.steps, "submit", full_at_first)
    policy = {"maxAttempts": 2, "initialBackoff": "60s", "maxBackoff": "60s", "backoffMultiplier": 1,
              "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}  # fmt: skip
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    async with grpc.aio.insecure_channel(
        f"unix:{tmp_path}/w.sock", options=[("grpc.service_config", config)]
    ) as patient:
        request = pb.GenerateRequest(text="hello", sampling=pb.Sampling(max_tokens=2))
        call = inference_pb2_grpc.InferenceServiceStub(patient).Generate(request, timeout=20)
        messages = [message async for message in call]
    assert len(refused) == 1
    assert messages[-1].finish_reason != 0


async def test_the_worker_says_what_it_is(worker: RunningWorker, base_path: Path, foundry: Foundry) -> None:
    """GetServerInfo names engine, base, fingerprint and where adapters may come from."""
    info = await worker.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.engine, info.device, info.dtype) == ("torch", "cpu", "float32")
    assert len(info.base_fingerprint) == 64
    assert str(foundry.directory) in info.adapter_roots
    assert info.context_tokens > 0
    assert lora.digests(base_path / "model.safetensors").sha256 != info.base_fingerprint

"""The gRPC door: each method converts, calls, converts back. Errors become status codes in one table."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc

import genome
from genome import errors
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc
from inference_worker import convert, routes, sources
from inference_worker.adapters import Adapters, AnotherDigest, Lease
from inference_worker.engine import Engine, Question
from inference_worker.replies import Reply
from inference_worker.requests import Failed, Finish, Generation, Scoring, Token
from inference_worker.sampling import Sampler, Sampling
from inference_worker.scheduler import Scheduler

STATUS: tuple[tuple[type[errors.GenomeError], grpc.StatusCode], ...] = (
    (sources.OutsideRoots, grpc.StatusCode.PERMISSION_DENIED),
    (sources.WrongBase, grpc.StatusCode.FAILED_PRECONDITION),
    (sources.WrongDigest, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (routes.StaleGeneration, grpc.StatusCode.ABORTED),
    (AnotherDigest, grpc.StatusCode.ALREADY_EXISTS),
    (errors.Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Busy, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.Damaged, grpc.StatusCode.DATA_LOSS),
    (errors.GenomeError, grpc.StatusCode.INTERNAL),
)
"""The first class that fits decides."""
RETRY_METADATA = "grpc-retry-pushback-ms"


def status(error: errors.GenomeError) -> grpc.StatusCode:
    return next(code for kind, code in STATUS if isinstance(error, kind))


async def refuse(context: grpc.aio.ServicerContext, error: errors.GenomeError) -> NoReturn:
    """Ends a call with our error; where it says when to try again, in the metadata gRPC's own retries go by."""
    seconds = error.retry_seconds if isinstance(error, errors.Busy) else None
    trailing = () if seconds is None else ((RETRY_METADATA, str(round(seconds * 1000))),)
    await context.abort(status(error), str(error), trailing)


def answers(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A unary method from one that takes only the request and raises our errors."""

    async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(self, request)
        except errors.GenomeError as error:
            return await refuse(context, error)

    return answer


def streams(method: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any, Any], AsyncIterator[Any]]:
    """A streaming method, likewise."""

    async def stream(self: Any, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            async for message in method(self, request):
                yield message
        except errors.GenomeError as error:
            await refuse(context, error)

    return stream


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """`genome.v1.InferenceService` over an engine."""

    def __init__(
        self,
        engine: Engine,
        adapters: Adapters,
        scheduler: Scheduler,
        info: pb.GetServerInfoResponse,
        reply_tokens: int,
    ) -> None:
        self._engine = engine
        self._adapters = adapters
        self._scheduler = scheduler
        self._info = info
        self._reply_tokens = reply_tokens
        self._draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def drain(self, seconds: float) -> bool:
        """Takes no more requests and waits for those there are; False if some did not end in time."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    @answers
    async def LoadAdapter(self, request: pb.LoadAdapterRequest) -> pb.LoadAdapterResponse:
        loaded = await self._adapters.load(convert.load_order(request))
        return convert.load_response(loaded, self._adapters)

    @answers
    async def UnloadAdapter(self, request: pb.UnloadAdapterRequest) -> pb.UnloadAdapterResponse:
        grace = request.grace_seconds if request.HasField("grace_seconds") else None
        return pb.UnloadAdapterResponse(in_flight=self._adapters.unload(request.adapter_id, grace))

    @answers
    async def ListAdapters(self, request: pb.ListAdaptersRequest) -> pb.ListAdaptersResponse:
        infos = [convert.adapter_info(adapter, self._adapters) for adapter in self._adapters.list()]
        return pb.ListAdaptersResponse(adapters=infos)

    @answers
    async def SetRoute(self, request: pb.SetRouteRequest) -> pb.SetRouteResponse:
        expected = request.expected_generation if request.HasField("expected_generation") else None
        table, swap_ms = self._adapters.set_routes(convert.routes(request), expected)
        return pb.SetRouteResponse(generation=table.generation, swap_ms=swap_ms)

    @answers
    async def ListRoutes(self, request: pb.ListRoutesRequest) -> pb.ListRoutesResponse:
        return convert.routes_response(self._adapters.table)

    @answers
    async def GetServerInfo(self, request: pb.GetServerInfoRequest) -> pb.GetServerInfoResponse:
        info = pb.GetServerInfoResponse()
        info.CopyFrom(self._info)
        info.in_flight = self._in_flight
        info.generation = self._adapters.table.generation
        return info

    @streams
    async def Generate(self, request: pb.GenerateRequest) -> AsyncIterator[pb.GenerateResponse]:
        sampling = convert.sampling(request.sampling)
        prompt = convert.prompt(request, self._engine.tokenizer)
        limit = self._limit(len(prompt), sampling)
        with self._serving(), self._adapters.lease(convert.target(request), request.session) as lease:
            events: asyncio.Queue[Token | Failed] = asyncio.Queue()
            generation = Generation(
                terms=lease.terms,
                prompt=prompt,
                sampler=Sampler(sampling),
                max_tokens=limit,
                end_tokens=self._engine.tokenizer.end_tokens,
                background=convert.background(request),
                deliver=events.put_nowait,
            )
            self._scheduler.submit(generation)
            try:
                async for message in self._reply(generation, sampling, events, lease):
                    yield message
            finally:
                self._scheduler.cancel(generation)

    @answers
    async def Score(self, request: pb.ScoreRequest) -> pb.ScoreResponse:
        with self._serving(), self._adapters.lease(convert.target(request)) as lease:
            # Rendering and encoding thousands of texts would hold up everyone's tokens on the event loop.
            questions = await asyncio.to_thread(self._questions, request, lease)
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            # Its caller may have gone, and with it who waits, before it is known to be cancelled.
            scoring = Scoring(
                questions,
                convert.background(request),
                deliver=lambda answer: None if done.done() else done.set_result(answer),
            )
            if questions:
                self._scheduler.submit(scoring)
            else:
                done.set_result([])
            try:
                answered = await done
            finally:
                self._scheduler.cancel(scoring)
            if isinstance(answered, Failed):
                raise answered.error
            return convert.scores(request, answered, lease)

    async def _reply(
        self, generation: Generation, sampling: Sampling, events: asyncio.Queue[Token | Failed], lease: Lease
    ) -> AsyncIterator[pb.GenerateResponse]:
        decode = self._engine.tokenizer.decode
        reply = Reply(lambda tokens: decode(tokens, sampling.keep_special_tokens), sampling.stop)
        served = convert.served(lease)
        made = 0
        while True:
            batch = [await events.get()]
            while not events.empty():
                batch.append(events.get_nowait())
            message = pb.GenerateResponse(served=None if made else served)
            finish: Finish | None = None
            for event in batch:
                if isinstance(event, Failed):
                    raise event.error
                made += 1
                message.token_ids.append(event.id)
                if event.logprobs is not None:
                    message.logprobs.append(convert.logprob(event.logprobs, self._engine.tokenizer))
                ends = event.id in generation.end_tokens
                message.text += reply.end() if ends else reply.add([event.id])
                if event.finish == "length":
                    message.text += reply.end()
                finish = "stop" if reply.stopped else event.finish
                if finish:
                    break
            if finish:
                message.finish_reason = convert.FINISHES[finish]
                message.served.CopyFrom(served)
                message.usage.prompt_tokens = len(generation.prompt)
                message.usage.cached_prompt_tokens = generation.recalled
                message.usage.completion_tokens = made
            yield message
            if finish:
                return

    def _questions(self, request: pb.ScoreRequest, lease: Lease) -> tuple[Question, ...]:
        tokenizer, terms = self._engine.tokenizer, lease.terms
        questions = tuple(
            Question(terms, convert.prompt(variant, tokenizer), convert.continuations(variant, tokenizer))
            for item in request.items
            for variant in convert.variants(item)
        )
        for question in questions:
            longest = len(question.prompt) + max(map(len, question.continuations), default=0)
            if longest > self._engine.facts.context_tokens:
                raise errors.InvalidInput(
                    f"a prompt and its continuation have {longest} tokens",
                    f"The context holds {self._engine.facts.context_tokens}",
                )
            for token in (token for tokens in question.continuations for token in tokens):
                if not 0 <= token < self._engine.facts.vocabulary:
                    raise errors.InvalidInput(
                        f"{token} is no token id of this base", f"It has {self._engine.facts.vocabulary}"
                    )
        return questions

    def _limit(self, prompt_tokens: int, sampling: Sampling) -> int:
        """Most tokens the reply may have."""
        context = self._engine.facts.context_tokens
        if prompt_tokens >= context:
            raise errors.InvalidInput(
                f"the prompt has {prompt_tokens} tokens, and the context holds {context} with the reply", "Shorten it"
            )
        return min(sampling.max_tokens or self._reply_tokens, context - prompt_tokens)

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """Counts a request as in flight."""
        if self._draining:
            raise errors.Unavailable("the worker is shutting down", "Try again in some seconds")
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()


def server_info(engine: Engine, base: str, source: sources.Source) -> pb.GetServerInfoResponse:
    """What does not change while the worker runs."""
    facts = engine.facts
    before, after = engine.tokenizer.user_turn
    return pb.GetServerInfoResponse(
        engine=facts.name,
        base=base,
        base_fingerprint=source.base_fingerprint,
        device=facts.device,
        dtype=facts.dtype,
        context_tokens=facts.context_tokens,
        adapter_roots=[str(root) for root in source.roots],
        user_turn=before,
        user_turn_end=after,
        version=genome.__version__,
        pid=os.getpid(),
        notes=facts.notes,
        served_base=source.served.path,
        served_fingerprint=source.served.fingerprint,
        quantisation=str(source.served.quantisation),
    )

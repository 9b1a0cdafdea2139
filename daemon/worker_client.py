"""The worker, as the daemon and the command line see it: typed calls, our errors instead of gRPC's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from genome import errors, sockets
from genome.config import Config
from genome.layout import Home
from genome.promotions import Stack, Variants
from genome.scores import AnswerScore
from genome.signals import Turn
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc

SCORE_TIMEOUT_SECONDS = 600.0
CALL_TIMEOUT_SECONDS = 60.0
ITEMS_PER_CALL = 32
"""Score requests are cut so that one never holds the worker's background rows for long."""

MEANING = {
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.PERMISSION_DENIED: errors.InvalidInput,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.DATA_LOSS: errors.InvalidAdapter,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Busy,
}


@dataclass(frozen=True)
class Question:
    """A prompt, as turns or as text taken as it is, and the answers to score."""

    answers: tuple[str, ...]
    turns: tuple[Turn, ...] = ()
    text: str = ""
    id: str = ""
    """By which its answers are known again."""


@dataclass(frozen=True)
class Reply:
    text: str
    served: pb.Served
    usage: pb.Usage
    finish_reason: int


NOTHING = Reply("", pb.Served(), pb.Usage(), 0)


@dataclass(frozen=True)
class WorkerClient:
    """One channel to the worker. Every method raises errors.GenomeError only."""

    channel: grpc.aio.Channel
    target: str

    @property
    def stub(self) -> inference_pb2_grpc.InferenceServiceStub:
        return inference_pb2_grpc.InferenceServiceStub(self.channel)

    async def info(self, seconds: float = CALL_TIMEOUT_SECONDS) -> pb.GetServerInfoResponse:
        with self._translated():
            return await self.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=seconds)

    async def watch(self) -> AsyncIterator[bool]:
        """Whether it serves, as soon as it answers and at every change, until the connection ends."""
        request = health_pb2.HealthCheckRequest(service="")
        with self._translated():
            async for answer in health_pb2_grpc.HealthStub(self.channel).Watch(request, wait_for_ready=True):
                yield answer.status == health_pb2.HealthCheckResponse.SERVING

    async def load(
        self, path: Path, adapter_id: str, digest: str, standby: bool = True, replace_id: str = ""
    ) -> pb.LoadAdapterResponse:
        request = pb.LoadAdapterRequest(
            adapter_path=str(path),
            adapter_id=adapter_id,
            expected_digest=digest,
            standby=standby,
            replace_id=replace_id,
        )
        with self._translated():
            return await self.stub.LoadAdapter(request, timeout=CALL_TIMEOUT_SECONDS)

    async def unload(self, adapter_id: str) -> None:
        with self._translated():
            await self.stub.UnloadAdapter(pb.UnloadAdapterRequest(adapter_id=adapter_id), timeout=CALL_TIMEOUT_SECONDS)

    async def adapters(self) -> list[pb.AdapterInfo]:
        with self._translated():
            answer = await self.stub.ListAdapters(pb.ListAdaptersRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return list(answer.adapters)

    async def routes(self) -> pb.ListRoutesResponse:
        with self._translated():
            return await self.stub.ListRoutes(pb.ListRoutesRequest(), timeout=CALL_TIMEOUT_SECONDS)

    async def set_routes(
        self, routes: dict[str, Variants], removed: Iterable[str], expected_generation: int
    ) -> pb.SetRouteResponse:
        """All of it in one assignment, if the routing table still is of that generation."""
        wanted = [
            pb.Route(name=name, variants=variants_to_proto(variants)) for name, variants in sorted(routes.items())
        ]
        wanted += [pb.Route(name=name) for name in sorted(removed)]
        request = pb.SetRouteRequest(routes=wanted, expected_generation=expected_generation)
        with self._translated():
            return await self.stub.SetRoute(request, timeout=CALL_TIMEOUT_SECONDS)

    async def score(
        self, questions: Sequence[Question], stack: Stack, background: bool = True
    ) -> list[tuple[AnswerScore, ...]]:
        """One tuple a question, one score an answer, in the order given."""
        priority = pb.PRIORITY_BACKGROUND if background else pb.PRIORITY_INTERACTIVE
        scores: list[tuple[AnswerScore, ...]] = []
        for start in range(0, len(questions), ITEMS_PER_CALL):
            items = [_item(question) for question in questions[start : start + ITEMS_PER_CALL]]
            request = pb.ScoreRequest(stack=to_proto(stack), items=items, priority=priority)
            with self._translated():
                answer = await self.stub.Score(request, timeout=SCORE_TIMEOUT_SECONDS)
            scores += [tuple(_answer_score(scored) for scored in item.continuations) for item in answer.items]
        return scores

    async def generate(
        self, request: pb.GenerateRequest, seconds: float | None = None
    ) -> AsyncIterator[pb.GenerateResponse]:
        with self._translated():
            async for message in self.stub.Generate(request, timeout=seconds):
                yield message

    async def reply(self, request: pb.GenerateRequest, seconds: float = CALL_TIMEOUT_SECONDS) -> Reply:
        """A whole reply, within so many seconds."""
        text, last = [], pb.GenerateResponse()
        async for message in self.generate(request, seconds):
            text.append(message.text)
            last = message
        return Reply("".join(text), last.served, last.usage, last.finish_reason)

    async def replies(
        self, requests: Sequence[pb.GenerateRequest], at_once: int, seconds: float = CALL_TIMEOUT_SECONDS
    ) -> list[Reply]:
        """A whole reply to each, in order; each within so many seconds."""
        found: list[Reply] = [NOTHING] * len(requests)
        limiter = anyio.CapacityLimiter(at_once)

        async def one(index: int) -> None:
            async with limiter:
                found[index] = await self.reply(requests[index], seconds)

        try:
            async with anyio.create_task_group() as group:
                for index in range(len(requests)):
                    group.start_soon(one, index)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed  # a worker that is away is told as one, not as a group of many
        return found

    def _translated(self) -> _Translated:
        return _Translated(self.target)


@asynccontextmanager
async def connect(config: Config, home: Home) -> AsyncIterator[WorkerClient]:
    target = sockets.address(config.worker.listen, home.worker_socket)
    # The default backoff lets minutes pass before a restarted worker is noticed. Waiting for one that is away takes
    # about 1 ms of CPU a second.
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1500)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield WorkerClient(channel, target)


def to_proto(stack: Stack) -> pb.Stack:
    return pb.Stack(entries=[pb.Stack.Entry(adapter_id=entry.adapter, scale=entry.scale) for entry in stack])


def variants_to_proto(variants: Variants) -> list[pb.Route.Variant]:
    return [pb.Route.Variant(stack=to_proto(variant.stack), weight=variant.weight) for variant in variants]


def messages(turns: Iterable[Turn]) -> list[pb.Message]:
    return [pb.Message(role=turn.role, content=turn.content) for turn in turns]


@dataclass(frozen=True)
class _Translated:
    """Turns a gRPC error leaving the block into one of ours."""

    target: str

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, grpc.aio.AioRpcError):
            return
        details = error.details() or error.code().name
        meaning = MEANING.get(error.code())
        if meaning is not None:
            raise meaning(details) from error
        raise errors.Unavailable(
            f"the worker at {self.target} does not answer ({error.code().name.lower()}: {details})",
            "Is it running? Start it with: genome worker",
        ) from error


def _item(question: Question) -> pb.ScoreRequest.Item:
    answers = [pb.ScoreRequest.Continuation(text=answer) for answer in question.answers]
    return pb.ScoreRequest.Item(messages=messages(question.turns), text=question.text, continuations=answers)


def _answer_score(scored: pb.ScoreResponse.Continuation) -> AnswerScore:
    return AnswerScore(scored.logprob, scored.tokens, scored.greedy_tokens)

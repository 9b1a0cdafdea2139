"""The daemon's gRPC door: each method converts, calls the function the command line calls, and converts back."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from daemon import actions, status
from genome import errors, files, jobs, registry, sockets
from genome.errors import GenomeError
from genome.lines import Line, Reader
from genome.promotions import Promotion
from genome.signals import METRIC, Defaults
from genome.v1 import learning_pb2 as pb
from genome.v1 import learning_pb2_grpc

if TYPE_CHECKING:
    from daemon.supervisor import Supervisor

T = TypeVar("T")
CALLER = "grpc"
"""Who acts, in the records of what was asked through this door."""
STOP_SECONDS = 0.5
"""For calls such as a watcher's to end."""
SERVICE = pb.DESCRIPTOR.services_by_name["LearningService"].full_name

PLAIN_FIELDS = tuple(field.name for field in pb.TrainingSignal.DESCRIPTOR.fields if not field.has_presence)
"""Read one by one: four times as fast as ListFields."""

READ_AHEAD = 3
"""Messages of signals that are read while others are made durable; they are synced together then."""

STATUS: dict[type[GenomeError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Damaged: grpc.StatusCode.DATA_LOSS,
}


class LearningService(learning_pb2_grpc.LearningServiceServicer):
    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.home = supervisor.home
        self.reader = Reader()
        self.events = asyncio.get_running_loop()

    async def SubmitSignals(self, request_iterator: AsyncIterator[pb.SubmitSignalsRequest], context: Any) -> None:
        send, receive = anyio.create_memory_object_stream[pb.SubmitSignalsRequest](READ_AHEAD)

        async def read() -> None:
            async with send:
                async for request in request_iterator:
                    await send.send(request)

        refused: GenomeError | None = None
        async with anyio.create_task_group() as group, receive:
            group.start_soon(read)
            async for request in receive:
                together = [request]
                with suppress(anyio.WouldBlock, anyio.EndOfStream):
                    while len(together) <= READ_AHEAD:
                        together.append(receive.receive_nowait())
                try:
                    answers = await anyio.to_thread.run_sync(self._submit, together)
                except GenomeError as error:
                    refused = error
                    group.cancel_scope.cancel()
                    break
                for answer in answers:
                    await context.write(answer)
        if refused is not None:
            await _abort(context, refused)

    def _submit(self, requests: list[pb.SubmitSignalsRequest]) -> list[pb.SubmitSignalsResponse]:
        """In a thread, which goes on when its call is cancelled: so it rings itself those who must know."""
        now, buffer = time.time(), self.supervisor.ingest.buffer
        read = [self._read(request, buffer.defaults(int(now * 1000))) for request in requests]
        try:
            receipts = buffer.accept_together([lines for lines, _ in read], now)
        except errors.Busy:
            self._ring("ingest")  # it tells that nothing is taken, and when that is over
            raise
        if any(receipt.accepted for receipt in receipts):
            self._ring("planner", "monitor")
        return [
            pb.SubmitSignalsResponse(accepted=receipt.accepted, duplicates=receipt.duplicates, rejected=rejected)
            for receipt, (_, rejected) in zip(receipts, read, strict=True)
        ]

    def _read(self, request: pb.SubmitSignalsRequest, defaults: Defaults) -> tuple[list[Line], list[pb.Rejection]]:
        lines: list[Line] = []
        rejected = []
        for index, message in enumerate(request.signals):
            if message.type == METRIC:  # it may say no time, and be like the next one in every word
                defaults = replace(defaults, place=uuid.uuid4().hex)
            try:
                lines.append(self.reader.fields(_fields(message), defaults))
            except errors.InvalidInput as error:
                rejected.append(pb.Rejection(index=index, reason=str(error)))
        return lines, rejected

    async def ReportMetric(self, request: pb.ReportMetricRequest, context: Any) -> pb.ReportMetricResponse:
        said = pb.TrainingSignal(
            type=METRIC, persona_id=request.persona, domain=request.domain, input=request.metric, value=request.value,
            source="automated", timestamp=request.timestamp, id=request.id,
        )  # fmt: skip
        if request.adapter_id:
            said.adapter.id = request.adapter_id
        (answer,) = await self._answer(context, self._submit, [pb.SubmitSignalsRequest(signals=[said])])
        if answer.rejected:
            await _abort(context, errors.InvalidInput(answer.rejected[0].reason))
        return pb.ReportMetricResponse(duplicate=bool(answer.duplicates))

    def _ring(self, *names: str) -> None:
        """From another thread than the loops'."""
        for name in names:
            self.events.call_soon_threadsafe(self.supervisor.alarms[name].ring)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        found = await self._answer(context, status.read, self.home, self.supervisor.config)
        return pb.GetStatusResponse(json=json.dumps({**found, "daemon": live(self.supervisor)}))

    async def FlushBuffer(self, request: pb.FlushBufferRequest, context: Any) -> pb.FlushBufferResponse:
        batch = await self._act(
            context, actions.flush, self.home, self.supervisor.config, request.persona, request.domain
        )
        return pb.FlushBufferResponse(batch=batch.id, signals=batch.signals)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        return await self._answer(context, self._list_jobs)

    def _list_jobs(self) -> pb.ListJobsResponse:
        with files.locked(self.home.lock):
            found = [jobs.summary(directory) for directory in (*jobs.active(self.home), *jobs.completed(self.home))]
        return pb.ListJobsResponse(jobs=[_job(summary) for summary in found])

    async def StartJob(self, request: pb.StartJobRequest, context: Any) -> pb.StartJobResponse:
        started = await self._act(
            context, actions.start, self.home, self.supervisor.config, request.persona, request.domain, request.job
        )
        return pb.StartJobResponse(batch=started.batch, job=started.job)

    async def StopJob(self, request: pb.StopJobRequest, context: Any) -> pb.StopJobResponse:
        await self._act(context, jobs.hold, self.home, request.job)
        return pb.StopJobResponse()

    async def ListPromotions(self, request: pb.ListPromotionsRequest, context: Any) -> pb.ListPromotionsResponse:
        found = await self._answer(context, registry.history, self.home, request.persona)
        return pb.ListPromotionsResponse(promotions=[_promotion(promotion) for promotion in found])

    async def DeployAdapter(self, request: pb.DeployAdapterRequest, context: Any) -> pb.DeployAdapterResponse:
        made = await self._act(context, actions.deploy, self.home, request.adapter_id, CALLER, request.force)
        return pb.DeployAdapterResponse(promotion=_promotion(made))

    async def RollBackAdapter(self, request: pb.RollBackAdapterRequest, context: Any) -> pb.RollBackAdapterResponse:
        to = request.adapter_id or None
        made = await self._act(context, actions.roll_back, self.home, request.persona, CALLER, to)
        return pb.RollBackAdapterResponse(promotion=_promotion(made))

    async def PinPersona(self, request: pb.PinPersonaRequest, context: Any) -> pb.PinPersonaResponse:
        made = await self._act(context, actions.pin, self.home, request.persona, CALLER, True)
        return pb.PinPersonaResponse(promotion=_promotion(made))

    async def UnpinPersona(self, request: pb.UnpinPersonaRequest, context: Any) -> pb.UnpinPersonaResponse:
        made = await self._act(context, actions.pin, self.home, request.persona, CALLER, False)
        return pb.UnpinPersonaResponse(promotion=_promotion(made))

    async def PauseTraining(self, request: pb.PauseTrainingRequest, context: Any) -> pb.PauseTrainingResponse:
        await self._act(context, actions.pause, self.home)
        return pb.PauseTrainingResponse()

    async def ResumeTraining(self, request: pb.ResumeTrainingRequest, context: Any) -> pb.ResumeTrainingResponse:
        await self._act(context, actions.resume, self.home)
        return pb.ResumeTrainingResponse()

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> AsyncIterator[pb.Event]:
        with self.supervisor.announcer.watch() as events:
            # An empty first event: whoever watches knows that nothing from now on is missed.
            yield pb.Event(timestamp=int(time.time() * 1000), name="watching", json="{}")
            async for event in events:
                yield pb.Event(timestamp=int(event.time * 1000), name=event.name, json=event.to_json())

    async def _answer(self, context: Any, function: Callable[..., T], *arguments: Any) -> T:
        """Calls what syncs in a thread; our errors become status codes."""
        try:
            answer = await anyio.to_thread.run_sync(function, *arguments)
        except GenomeError as error:
            await _abort(context, error)
            raise
        return answer

    async def _act(self, context: Any, function: Callable[..., T], *arguments: Any) -> T:
        """The same for what changes the home: the loops look at once instead of waiting for the file event."""
        answer = await self._answer(context, function, *arguments)
        for alarm in self.supervisor.alarms.values():
            alarm.ring()
        return answer


async def _abort(context: Any, error: GenomeError) -> None:
    code = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)
    await context.abort(code, str(error))


def live(supervisor: Supervisor) -> dict[str, Any]:
    """What only the running daemon knows."""
    return {
        "started": supervisor.started,
        "waiting": supervisor.planner.waiting,
        "intake_stopped": supervisor.ingest.buffer.stopped,
        "duplicates": supervisor.ingest.duplicates,
        "deployed": supervisor.deployer.deployed,
        "feedback": supervisor.monitor.standing,
        "trouble": {name: asdict(trouble) for name, trouble in supervisor.trouble.items()},
    }


@asynccontextmanager
async def serving(supervisor: Supervisor) -> AsyncIterator[None]:
    """Opens the door for the length of the block."""
    server = grpc.aio.server()
    learning_pb2_grpc.add_LearningServiceServicer_to_server(LearningService(supervisor), server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    await health_servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    with sockets.reserved(supervisor.config.daemon.listen, supervisor.home.daemon_socket) as address:
        with sockets.private():
            server.add_insecure_port(address)
        await server.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await server.stop(STOP_SECONDS)


def _fields(message: pb.TrainingSignal) -> dict[str, Any]:
    """What a message says, by field name; in proto3 what is empty was not said."""
    fields = {name: getattr(message, name) or None for name in PLAIN_FIELDS}
    if message.HasField("weight"):
        fields["weight"] = message.weight
    if message.HasField("value"):
        fields["value"] = message.value
    if message.HasField("adapter"):
        fields["adapter"] = {field.name: value for field, value in message.adapter.ListFields()}
    return fields


def _job(summary: dict[str, Any]) -> pb.Job:
    named = {"id": summary["job"], "steps": summary["steps"] or 0, "loss": summary["loss"] or 0.0}
    same = {key: summary[key] or "" for key in ("batch", "persona", "domain", "trainer", "state", "adapter", "reason")}
    said = {key: summary[key] for key in ("tokens_per_second", "eta_seconds", "memory_mb", "validation_loss")}
    return pb.Job(**named, **same, **said, step=summary["step"] or 0)


def _promotion(promotion: Promotion) -> pb.Promotion:
    return pb.Promotion(
        number=promotion.number,
        persona=promotion.persona,
        adapters=[entry.adapter for entry in promotion.stack],
        reason=promotion.reason,
        timestamp=promotion.created,
        kind=promotion.kind,
        by=promotion.by,
        numbers=promotion.numbers,
        share=promotion.share,
        pinned=promotion.pinned,
        quarantined=promotion.quarantined,
    )

"""The worker as the daemon sees it: whatever fails is told as one of our errors, also where many are asked at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from daemon import anchors, worker_client
from genome.config import Config
from genome.errors import GenomeError, NotFound, Unavailable
from genome.layout import Home
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc

CONFIG = Config.model_validate({"base": "base", "gate": {"anchors": 4}})


class HoldsNothing(inference_pb2_grpc.InferenceServiceServicer):
    """Stands for a worker that holds no adapter."""

    async def Generate(self, _request: Any, context: Any) -> Any:  # noqa: N802
        await context.abort(grpc.StatusCode.NOT_FOUND, "helper/git-v1.0 is not loaded")
        yield pb.GenerateResponse()


async def told(home: Home, many: str) -> GenomeError:
    """What is raised where several replies are asked for together."""
    async with worker_client.connect(CONFIG, home) as worker:
        with pytest.raises(GenomeError) as raised:
            if many == "replies":
                await worker.replies([pb.GenerateRequest(text="Hi")] * 4, 2)
            else:
                await anchors.sample(CONFIG, worker, pb.GetServerInfoResponse(user_turn="<|user|>"))
    return raised.value


@pytest.mark.parametrize("many", ["replies", "anchors"])
async def test_a_worker_that_is_away_is_told_as_that(home: Home, many: str) -> None:
    """With what to do about it, whoever asks and however many replies were wanted."""
    error = await told(home, many)
    assert isinstance(error, Unavailable) and "genome worker" in error.hint


@pytest.mark.parametrize("many", ["replies", "anchors"])
async def test_an_adapter_that_is_not_loaded_is_told_as_that(home: Home, many: str) -> None:
    """In the worker's words."""
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(HoldsNothing(), server)
    Path(home.worker_socket).parent.mkdir(parents=True, exist_ok=True)
    server.add_insecure_port(f"unix:{home.worker_socket}")
    await server.start()
    try:
        error = await told(home, many)
    finally:
        await server.stop(None)
    assert isinstance(error, NotFound) and "helper/git-v1.0 is not loaded" in str(error)

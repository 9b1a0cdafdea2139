"""Promises of the worker as a process: private socket, ready when it can answer, and a clean end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from worker_runs import Foundry, Steps, generation

from genome import lora
from genome.layout import Home
from genome.promotions import Promotion, StackEntry
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc
from inference_worker.engine import Engine, Term

GOOD, BAD = "ann/code-v1.0", "bob/mail-v1.0"


@contextmanager
def started(home: Home, base: Path, directory: Path, worker: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that has told its service manager that it is ready."""
    home.root.mkdir(parents=True, exist_ok=True)
    home.config.write_text(f'base = "{base}"\n[worker]\nshutdown_seconds = 5.0\n{worker}')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(60)
        environment = os.environ | {"NOTIFY_SOCKET": str(directory / "notify"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "inference_worker", str(home.root)], env=environment)
        try:
            assert manager.recv(100) == b"READY=1"
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose sockets' paths are short enough."""
    return tmp_path_factory.mktemp("w")


def promote(home: Home, persona: str, adapter_id: str, digest: str) -> None:
    home.promotions(persona).mkdir(parents=True)
    Promotion(
        number=1, persona=persona, kind="deploy", stack=(StackEntry(adapter=adapter_id, digest=digest),), builds_on=0,
        reason="a test", created=0,
    ).write(home.promotions(persona) / "000001.json")  # fmt: skip


def test_a_worker_serves_what_was_promoted_and_stops_cleanly(short: Path, base_path: Path, foundry: Foundry) -> None:
    """READY means SERVING with the promoted routes; a broken adapter costs its own route only; SIGTERM exits 0."""
    home = Home(short / "h")
    for adapter_id in (GOOD, BAD):
        shutil.copytree(foundry("one", seed=11), home.adapter(adapter_id))
    digest = lora.digests(home.adapter(GOOD) / "adapter_model.safetensors").sha256
    promote(home, "ann", GOOD, digest)
    promote(home, "bob", BAD, "0" * 64)
    with started(home, base_path, short) as process, grpc.insecure_channel(f"unix:{home.worker_socket}") as channel:
        mode = home.worker_socket.stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
        assert stat.S_IMODE(home.worker_socket.parent.stat().st_mode) == 0o700
        health = health_pb2_grpc.HealthStub(channel)
        name = "genome.v1.InferenceService"
        for service in ("", name):
            status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        routes = {route.name for route in stub.ListRoutes(pb.ListRoutesRequest()).routes}
        assert routes == {"ann", "ann/code"}
        watch = health.Watch(health_pb2.HealthCheckRequest(service=name))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        sampling = pb.Sampling(max_tokens=300, temperature=100.0, seed=1)
        request = pb.GenerateRequest(text="hello", route="ann/code", sampling=sampling)
        reply = stub.Generate(request)
        tokens = len(next(reply).token_ids)
        process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        last = None
        for last in reply:
            tokens += len(last.token_ids)
        assert last is not None
        assert last.finish_reason != 0
        assert last.usage.completion_tokens == tokens
        assert process.wait(20) == 0


def test_a_worker_that_starts_amid_a_canary_keeps_sessions_together(
    short: Path, base_path: Path, foundry: Foundry
) -> None:
    """It reads share and others from the records; a session gets one version every time, and the share about holds."""
    home, old, new = Home(short / "h"), "ann/code-v1.0", "ann/code-v1.1"
    digests = {}
    for seed, adapter_id in enumerate((old, new), 11):
        shutil.copytree(foundry("one", seed=seed), home.adapter(adapter_id))
        digests[adapter_id] = lora.digests(home.adapter(adapter_id) / "adapter_model.safetensors").sha256
    promote(home, "ann", old, digests[old])
    Promotion(
        number=2, persona="ann", kind="canary", stack=(StackEntry(adapter=new, digest=digests[new]),), builds_on=1,
        reason="a test", share=0.3, created=0,
    ).write(home.promotions("ann") / "000002.json")  # fmt: skip
    with started(home, base_path, short), grpc.insecure_channel(f"unix:{home.worker_socket}") as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        def answered(session: str) -> str:
            request = pb.GenerateRequest(
                text="hi", route="ann/code", session=session, sampling=pb.Sampling(max_tokens=1)
            )
            *_, last = stub.Generate(request)
            return str(last.served.adapters[0].id)

        first = {f"session {number}": answered(f"session {number}") for number in range(60)}
        assert {session: answered(session) for session in first} == first
        assert set(first.values()) == {old, new} and 8 <= list(first.values()).count(new) <= 30


def test_a_worker_serves_with_mlx(short: Path, base_path: Path, foundry: Foundry, torch_engine: Engine) -> None:
    """`engine = "mlx"` is all it takes: the promoted adapter answers over gRPC as it does with torch."""
    pytest.importorskip("mlx_lm", reason="mlx-lm is not installed: pip install 'genome[mlx]'")
    home = Home(short / "h")
    shutil.copytree(foundry("one", seed=11), home.adapter(GOOD))
    digest = lora.digests(home.adapter(GOOD) / "adapter_model.safetensors").sha256
    promote(home, "ann", GOOD, digest)
    settings = 'engine = "mlx"\ndevice = "cpu"\ndtype = "float32"\n'
    with started(home, base_path, short, settings) as process, grpc.insecure_channel(
        f"unix:{home.worker_socket}"
    ) as channel:  # fmt: skip
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        info = stub.GetServerInfo(pb.GetServerInfoRequest())
        assert (info.engine, info.device, info.dtype) == ("mlx", "cpu", "float32")
        sampling = pb.Sampling(max_tokens=16)
        for route, terms in (("", ()), ("ann/code", (Term(torch_engine.load(lora.read(home.adapter(GOOD))), 1.0),))):
            reply = list(stub.Generate(pb.GenerateRequest(text="hello", route=route, sampling=sampling)))
            tokens = [token for message in reply for token in message.token_ids]
            steps = Steps(torch_engine)
            same = generation(
                torch_engine.tokenizer.encode("hello"), 16, terms, end_tokens=torch_engine.tokenizer.end_tokens
            )
            steps.submit(same)
            steps.step_until_done(same)
            assert tokens == same.written
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_second_worker_leaves_the_first_alone(short: Path, base_path: Path) -> None:
    """One home has one worker; another one says whose place it is and ends with 1."""
    home = Home(short / "h")
    with started(home, base_path, short):
        second = subprocess.run(
            [sys.executable, "-m", "inference_worker", str(home.root)], capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 6
        assert "held by" in second.stderr
        with grpc.insecure_channel(f"unix:{home.worker_socket}") as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            assert stub.GetServerInfo(pb.GetServerInfoRequest()).engine == "torch"


@pytest.mark.parametrize("address", ["0.0.0.0:7000", "192.168.1.4:7000", "example.org:80", "7000", "[::]:7000"])
def test_the_network_is_refused(address: str, tmp_path: Path) -> None:
    """Only the loopback and unix sockets are listened on."""
    from genome.errors import InvalidConfig
    from genome.sockets import reserved

    with pytest.raises(InvalidConfig, match="loopback"), reserved(address, tmp_path / "w.sock"):
        pass
    for fine in ("127.0.0.1:7000", "[::1]:7000", "localhost:7000"):
        with reserved(fine, tmp_path / "w.sock") as taken:
            assert taken == fine

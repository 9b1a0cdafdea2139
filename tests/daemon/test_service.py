"""The daemon as a real process behind its gRPC door, with no worker and no training: intake, status, restarts."""

from __future__ import annotations

import asyncio
import json
import os
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import grpc
import pytest
import whole_home
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from daemon import status
from daemon.cli.serving import _print_status
from daemon.events import Alarm
from daemon.service import LearningService
from genome import config, pending, registry
from genome.buffer import Buffer, Receipt
from genome.config import Intake
from genome.feedback import Feedback, Standing
from genome.layout import Home
from genome.v1 import learning_pb2 as pb
from genome.v1 import learning_pb2_grpc

Drop = Callable[..., Path]


class Daemon:
    """A supervisor process and a client of it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.log = (home.root / "daemon.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "daemon", "--home", str(home.root)], stdout=self.log, stderr=self.log
        )
        # A process that was killed may leave a channel's connection behind: every daemon gets its own.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
        self.channel = grpc.insecure_channel(f"unix:{home.daemon_socket}", options=options)
        self.stub = learning_pb2_grpc.LearningServiceStub(self.channel)

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What it tells, from the moment this returns."""
        stream = self.stub.WatchEvents(pb.WatchEventsRequest(), wait_for_ready=True, timeout=60)
        assert next(stream).name == "watching"
        return ((event.name, json.loads(event.json)) for event in stream)

    def status(self) -> dict[str, Any]:
        answer = self.stub.GetStatus(pb.GetStatusRequest(), wait_for_ready=True, timeout=60)
        found: dict[str, Any] = json.loads(answer.json)
        return found

    def submit(self, *lines: dict[str, Any]) -> pb.SubmitSignalsResponse:
        message = pb.SubmitSignalsRequest(signals=[pb.TrainingSignal(**line) for line in lines])
        return next(self.stub.SubmitSignals(iter([message]), wait_for_ready=True, timeout=60))

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.channel.close()
        self.log.close()
        return status


@pytest.fixture
def start(home: Home, base_path: Path) -> Iterator[Callable[[], Daemon]]:
    config.init(home, str(base_path))
    started: list[Daemon] = []

    def one() -> Daemon:
        started.append(Daemon(home))
        return started[-1]

    yield one
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.end(signals.SIGKILL)


def line(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "correction", "persona_id": "helper", "domain": "git", "input": f"question {number}",
            "correct_output": f"answer {number}", **fields}  # fmt: skip


def wait_for(events: Iterator[tuple[str, dict[str, Any]]], wanted: str, **facts: Any) -> dict[str, Any]:
    for name, told in events:
        if name == wanted and told.items() >= facts.items():
            return told
    raise AssertionError(f"the daemon never told {wanted}")


def test_a_dropped_file_wakes_the_daemon(start: Callable[[], Daemon], drop: Drop, correction: Drop) -> None:
    """Taken because the file appeared, not because time passed."""
    daemon = start()
    events = daemon.events()
    drop(correction(0), correction(1), b"nope")
    assert wait_for(events, "ingested") == {"accepted": 2, "duplicates": 0, "rejected": 1}
    assert daemon.end(signals.SIGTERM) == 0


def test_ok_over_grpc_means_on_disk(start: Callable[[], Daemon], home: Home) -> None:
    """A daemon killed right after its answer has lost nothing, and takes the same signals as duplicates afterwards."""
    daemon = start()
    answer = daemon.submit(line(0), line(1), line(2, persona_id="Bad Name"), line(3, weight=-1.0))
    assert (answer.accepted, answer.duplicates) == (2, 0)
    assert [(refused.index, bool(refused.reason)) for refused in answer.rejected] == [(2, True), (3, True)]
    daemon.end(signals.SIGKILL)
    assert pending.count(home, "helper", "git").examples == 2
    answer = start().submit(line(0), line(1), line(4))
    assert (answer.accepted, answer.duplicates) == (1, 2)


def test_a_full_disk_is_said_to_clients_and_by_status(
    start: Callable[[], Daemon], home: Home, drop: Drop, correction: Drop, capsys: pytest.CaptureFixture[str]
) -> None:
    """RESOURCE_EXHAUSTED, and in `genome status` why files stay where they are; nothing is stored or lost."""
    home.config.write_text(home.config.read_text() + "\n[intake]\nmin_free_mb = 1000000000\n")
    daemon = start()
    events = daemon.events()
    path = drop(correction(0))
    assert "intake.min_free_mb" in wait_for(events, "intake_stopped")["reason"]
    with pytest.raises(grpc.RpcError) as raised:
        daemon.submit(line(1))
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "intake.min_free_mb" in raised.value.details()
    assert "intake.min_free_mb" in daemon.status()["daemon"]["intake_stopped"]
    found = anyio.run(status.read_live, home, config.load(home))
    _print_status(found)
    assert "intake   stopped: " in capsys.readouterr().out
    assert path.exists() and pending.count(home, "helper", "git").examples == 0
    daemon.end(signals.SIGKILL)
    _print_status(anyio.run(status.read_live, home, config.load(home)))
    assert "intake   stopped" not in capsys.readouterr().out
    home.config.write_text(home.config.read_text().replace("1000000000", "1"))
    assert start().submit(line(1)).accepted == 1


def test_what_is_refused_over_grpc_alone_is_told(start: Callable[[], Daemon], home: Home) -> None:
    """With an empty inbox too: whoever watches hears that nothing is taken."""
    home.config.write_text(home.config.read_text() + "\n[intake]\nmin_free_mb = 1000000000\n")
    daemon = start()
    events = daemon.events()
    with pytest.raises(grpc.RpcError):
        daemon.submit(line(1))
    assert "intake.min_free_mb" in wait_for(events, "intake_stopped")["reason"]


async def test_a_call_that_is_cancelled_rings_all_the_same(home: Home) -> None:
    """Its signals are stored by then, or soon will be: who forms batches of them is woken after that."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Buffer):
        def accept_together(self, messages: Any, now: float) -> list[Receipt]:
            begun.set()
            go_on.wait(60)
            return super().accept_together(messages, now)

    buffer, alarms = Slow(home, Intake()), {name: Alarm() for name in ("planner", "monitor", "ingest")}
    alone = SimpleNamespace(home=home, ingest=SimpleNamespace(buffer=buffer), alarms=alarms)
    service = LearningService(alone)  # type: ignore[arg-type]
    said = pb.SubmitSignalsRequest(signals=[pb.TrainingSignal(**line(1))])
    call = asyncio.create_task(anyio.to_thread.run_sync(service._submit, [said]))
    await anyio.to_thread.run_sync(begun.wait)
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    go_on.set()
    with anyio.fail_after(60):
        await alarms["planner"].event.wait()
        await alarms["monitor"].event.wait()
    assert pending.count(home, "helper", "git").examples == 1 and not alarms["ingest"].event.is_set()


def test_every_field_crosses_the_wire(start: Callable[[], Daemon], home: Home) -> None:
    """What an application says over gRPC is what a dropped line would say."""
    said = line(0, wrong_output="w", context="c", source="ai", timestamp=123, session="s",
                adapter={"id": "helper/git-v1.0", "digest": "d", "generation": 7})  # fmt: skip
    start().submit(said)
    directory = home.pending("helper", "git")
    stored = json.loads(next(directory.glob("*.jsonl")).read_text())["signal"]
    assert {key: stored[key] for key in said} == said and stored["weight"] == 0.5


def test_a_worker_that_is_down_is_said_and_waited_for(start: Callable[[], Daemon], home: Home) -> None:
    """What needs it is tried again with growing patience, and status says so; intake goes on."""
    text = home.config.read_text() + "\n[triggers.threshold]\nmin_examples = 30\n"
    home.config.write_text(text)
    daemon = start()
    events = daemon.events()
    daemon.submit(*(line(i) for i in range(30)))
    told = wait_for(events, "loop_failed", loop="planner")
    assert "genome worker" in told["error"]
    status = daemon.status()
    assert status["daemon"]["trouble"]["planner"]["failures"] >= 1
    assert status["buffer"]["domains"][0]["queued"] == 30
    assert daemon.submit(line(99)).accepted == 1


def test_a_worker_is_noticed_whenever_it_comes(start: Callable[[], Daemon], home: Home) -> None:
    """The daemon waits for it without asking in turns; one that went away is waited for again."""
    daemon = start()
    events = daemon.events()
    for _ in range(2):
        server, healthy = grpc.server(ThreadPoolExecutor(2)), health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        server.add_insecure_port(f"unix:{home.worker_socket}")
        server.start()
        wait_for(events, "worker_serving")
        healthy.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        wait_for(events, "worker_not_serving")
        server.stop(None).wait()


def test_killed_anywhere_it_goes_on(start: Callable[[], Daemon], home: Home, drop: Drop, correction: Drop) -> None:
    """Promise 2: kill -9 while files are being taken, start again, and every line is there exactly once."""
    home.config.write_text(f"{home.config.read_text()}\n[triggers.threshold]\nmin_examples = 9999\n")
    expected = 0
    for round_number in range(4):
        daemon = start()
        events = daemon.events()
        drop(*(correction(1000 * round_number + i) for i in range(300)), name=f"{round_number}.jsonl")
        expected += 300
        if round_number % 2:
            wait_for(events, "ingested")
        daemon.end(signals.SIGKILL)
    daemon = start()
    daemon.submit(line(-1))  # taken after the scan that a start begins with, or beside it
    events = daemon.events()
    drop(correction(-2), name="last.jsonl")
    wait_for(events, "ingested")
    assert pending.count(home, "helper", "git").examples == expected + 2


def test_one_home_has_one_daemon(start: Callable[[], Daemon], home: Home) -> None:
    """A second one is refused in one sentence that names the first."""
    first = start()
    first.status()
    second = subprocess.run(
        [sys.executable, "-m", "daemon", "daemon", "--home", str(home.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 6
    assert f"process id {first.process.pid}" in second.stderr and "Traceback" not in second.stderr


def test_errors_have_their_status_codes(start: Callable[[], Daemon]) -> None:
    """NOT_FOUND for what is not there, INVALID_ARGUMENT for what cannot be."""
    daemon = start()
    daemon.status()
    for call, code in (
        (
            lambda: daemon.stub.FlushBuffer(pb.FlushBufferRequest(persona="helper", domain="git")),
            grpc.StatusCode.NOT_FOUND,
        ),
        (
            lambda: daemon.stub.FlushBuffer(pb.FlushBufferRequest(persona="No!", domain="git")),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (lambda: daemon.stub.StopJob(pb.StopJobRequest(job="job-1")), grpc.StatusCode.NOT_FOUND),
        (lambda: daemon.stub.RollBackAdapter(pb.RollBackAdapterRequest(persona="helper")), grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            call()
        assert raised.value.code() == code


def test_its_sockets_are_private(start: Callable[[], Daemon], home: Home) -> None:
    """Mode 0600 in a directory of mode 0700."""
    start().status()
    assert home.daemon_socket.stat().st_mode & 0o777 == 0o600
    assert home.daemon_socket.parent.stat().st_mode & 0o777 == 0o700


def test_a_deep_home_still_gets_a_socket(tmp_path: Path) -> None:
    """A unix socket's path is short; that of a home need not be."""
    home = Home(tmp_path / ("deep" * 50))
    assert len(os.fsencode(home.daemon_socket)) < 104
    assert home.daemon_socket != home.worker_socket


def test_a_metric_is_stored_when_it_is_answered(start: Callable[[], Daemon]) -> None:
    """Each report counts, but one that is sent again; one that is none is refused with its reason."""
    daemon = start()
    said = {"persona": "helper", "domain": "git", "metric": "csat", "value": 0.5, "adapter_id": "helper/git-v1.0"}

    def report(**changed: Any) -> bool:
        request = pb.ReportMetricRequest(**{**said, **changed})
        return bool(daemon.stub.ReportMetric(request, wait_for_ready=True, timeout=60).duplicate)

    assert [report(), report(), report(id="a"), report(id="a")] == [False, False, False, True]
    with pytest.raises(grpc.RpcError, match="finite number"):
        report(value=float("nan"))
    line = {"type": "metric", "persona_id": "helper", "domain": "git", "input": "csat", "value": 1.0}
    assert daemon.submit(line, line).accepted == 2
    found = Feedback(daemon.home, 30).by_version("helper", "git", "csat")
    assert found == {"": Standing(2, 1.0), "helper/git-v1.0": Standing(3, 0.5)}


def test_feedback_wakes_the_monitor(start: Callable[[], Daemon], home: Home, signal: Callable[..., Any]) -> None:
    """What serves goes back as soon as signals show that it is worse, and whoever watches is told."""
    now = time.time()
    for number in range(2):
        whole_home.turn(home, [signal(20 * number + each) for each in range(12)], True, now + number - 3600)
    daemon = start()
    events = daemon.events()
    for kind, version, begun in (("positive", "helper/git-v1.0", 0), ("mistake", "helper/git-v1.1", 100)):
        daemon.submit(*(
            {"type": kind, "persona_id": "helper", "domain": "git", "input": f"q {begun + each}", "wrong_output": "w",
             "adapter": pb.TrainingSignal.AnsweredBy(id=version)}
            for each in range(60)
        ))  # fmt: skip
    facts = next(facts for name, facts in events if name == "rolled_back")
    assert facts["adapter"] == "helper/git-v1.1" and facts["to"] == ["helper/git-v1.0"]


def test_a_persona_is_pinned_through_the_door(start: Callable[[], Daemon], home: Home, signal: Any) -> None:
    """The record says that it was asked for over gRPC; what was withdrawn is deployed with force alone."""
    for number in range(2):
        whole_home.turn(home, [signal(20 * number + each) for each in range(12)], True, time.time())
    registry.withdraw(home, "helper/git-v1.1", time.time(), "worse")
    stub = start().stub
    pinned = stub.PinPersona(pb.PinPersonaRequest(persona="helper"), wait_for_ready=True, timeout=60).promotion
    assert (pinned.kind, pinned.by, pinned.pinned) == ("pin", "grpc", True)
    with pytest.raises(grpc.RpcError, match="withdrawn"):
        stub.DeployAdapter(pb.DeployAdapterRequest(adapter_id="helper/git-v1.1"))
    forced = stub.DeployAdapter(pb.DeployAdapterRequest(adapter_id="helper/git-v1.1", force=True)).promotion
    assert list(forced.adapters) == ["helper/git-v1.1"] and forced.pinned
    assert not stub.UnpinPersona(pb.UnpinPersonaRequest(persona="helper")).promotion.pinned
    listed = stub.ListPromotions(pb.ListPromotionsRequest(persona="helper")).promotions
    assert list(listed[2].quarantined) == ["helper/git-v1.1"] and listed[2].by == "feedback"

"""The alert loops and their sinks: a real HTTP server, a real command, a real datagram socket, a real daemon."""

from __future__ import annotations

import json
import os
import re
import select
import signal as signals
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import anyio
import grpc
import pytest
import structlog
from fixed import NOW, ROOT
from grpc_health.v1 import health, health_pb2_grpc
from typer.testing import CliRunner

from daemon import alerts as loops
from daemon import cli, sinks, supervisor
from daemon.events import Announcer
from daemon.sinks import Command, Journal, Webhook
from genome import alerts, conditions, config, files
from genome.alerts import Alert
from genome.config import Config
from genome.layout import Home

SECRET = "a key for tests"
REFUSED = {"persona": "helper", "domain": "git", "batch": "batch-2026-11-20-001", "reason": "nothing was learned"}
PROMOTED = {"persona": "helper", "domain": "git", "adapter": "helper/git-v1.1", "share": 1.0}
DELIVERY = alerts.delivery(
    Alert(condition="refused/helper/git", severity="warning", summary="two\nlines", facts={"reason": "ü"}, since=7),
    ("log",), NOW,
)  # fmt: skip


@dataclass
class Request:
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Receiver:
    """An HTTP server that answers as it is told; 200 when it was told nothing more."""

    statuses: list[int] = field(default_factory=list)
    otherwise: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    requests: Queue[Request] = field(default_factory=Queue)
    free: threading.Event = field(default_factory=threading.Event)
    """While it is not set, no request is answered."""
    url: str = ""

    def next(self) -> Request:
        return self.requests.get(timeout=60)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("GENOME_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("NO_PROXY", "*")
    told = Receiver()
    told.free.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.requests.put(Request(dict(self.headers), body))
            told.free.wait(60)
            self.send_response(told.statuses.pop(0) if told.statuses else told.otherwise)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/alerts"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield told
    told.free.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Clock:
    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


def configured(**settings: Any) -> Config:
    return Config.model_validate({"base": "x", "alerts": {"journal": "off", "settle_minutes": 0, **settings}})


def composed(home: Home, settings: Config, clock: Clock | None = None) -> loops.Alerts:
    """As a daemon that starts has them; time stands still but for ``clock``."""
    made = loops.compose(home, settings, Announcer(), {})
    for courier in made.couriers:
        courier.clock, courier.share = clock or Clock(), lambda: 0.0
    return made


def courier(of: loops.Alerts, name: str) -> loops.Courier:
    return next(found for found in of.couriers if found.sink.name == name)


def owed(home: Home) -> list[tuple[str, tuple[str, ...]]]:
    return [(delivery.alert.status, delivery.owed) for delivery in alerts.read(home).owed]


# The loops


async def test_an_alert_is_written_before_it_is_sent(home: Home) -> None:
    """The step that hears of it makes it owed, wakes the sinks, and leaves the sending to them."""
    made = composed(home, configured())
    made.announcer.tell("batch_set_aside", **REFUSED)
    await made.step()
    assert owed(home) == [("raised", ("log",))] and courier(made, "log").alarm.event.is_set()
    with made.announcer.watch() as events:
        await courier(made, "log").step()
        event = await anext(aiter(events))
    assert event.name == "alert_raised" and event.facts["condition"] == "refused/helper/git"
    assert owed(home) == [] and alerts.read(home).open[0].condition == "refused/helper/git"


async def test_no_event_is_dropped(home: Home) -> None:
    """Thousands that are told before the loop has its turn are all folded."""
    made = composed(home, configured())
    for number in range(5000):
        made.announcer.tell("quality_dropped", persona="helper", domain="git", metric=f"m{number % 7}", value=number)
    made.announcer.tell("quality_recovered", persona="helper", domain="git", metric="m0")
    await made.step()
    assert len(alerts.read(home).open) == 6 and len(alerts.read(home).owed) == 8


async def test_what_could_not_be_written_is_not_forgotten(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails is tried again, with all that was heard."""
    made = composed(home, configured())
    made.announcer.tell("batch_set_aside", **REFUSED)

    def full(*_arguments: Any) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no room"):
        patched.setattr(files, "write", full)
        await made.step()
    await made.step()
    assert owed(home) == [("raised", ("log",))]


async def test_a_restart_delivers_exactly_what_is_owed(home: Home, receiver: Receiver) -> None:
    """What the log took is not logged again; what the webhook did not take is sent, in order and with the same id."""
    receiver.statuses = [500]
    settings = configured(webhook_url=receiver.url)
    before = composed(home, settings)
    before.announcer.tell("batch_set_aside", **REFUSED)
    await before.step()
    for each in before.couriers:
        await each.step()
    before.announcer.tell("promoted", **PROMOTED)
    await before.step()
    first = receiver.next()
    after = composed(home, settings)
    await after.step()
    with after.announcer.watch() as events:
        for each in after.couriers:
            await each.step()
        after.announcer.tell("the end")
        told = [(await anext(aiter(events))).name for _ in range(2)]
    assert told == ["alert_resolved", "the end"]
    again, last = receiver.next(), receiver.next()
    assert first.message == again.message and first.headers["X-Genome-Delivery"] == first.message["id"]
    assert (again.message["status"], last.message["status"]) == ("raised", "resolved")
    assert last.message["id"] != first.message["id"] and last.message["since"] == first.message["since"]
    assert receiver.requests.empty() and owed(home) == [] and alerts.read(home).open == ()


async def test_a_sink_that_is_slow_holds_up_nobody(home: Home, receiver: Receiver, tmp_path: Path) -> None:
    """While the webhook waits for an answer, the log, the command and the next alerts go on."""
    receiver.free.clear()
    made = composed(home, configured(webhook_url=receiver.url, command=["tee", "-a", str(tmp_path / "got")]))
    made.announcer.tell("batch_set_aside", **REFUSED)
    await made.step()
    async with anyio.create_task_group() as group:
        group.start_soon(courier(made, "webhook").step)
        await anyio.to_thread.run_sync(receiver.next)
        made.announcer.tell("promoted", **PROMOTED)
        await made.step()
        await courier(made, "log").step()
        await courier(made, "command").step()
        assert owed(home) == [("raised", ("webhook",)), ("resolved", ("webhook",))]
        assert [json.loads(line)["status"] for line in (tmp_path / "got").read_text().splitlines()] == [
            "raised",
            "resolved",
        ]
        receiver.free.set()
    assert owed(home) == []


async def test_what_fails_is_tried_again_later_and_later(home: Home, receiver: Receiver) -> None:
    """Being woken does not hasten it; each pause is twice the last; one success begins anew."""
    receiver.statuses, clock = [500, 503, 429], Clock()
    made = composed(home, configured(webhook_url=receiver.url), clock)
    webhook = courier(made, "webhook")
    made.announcer.tell("batch_set_aside", **REFUSED)
    await made.step()
    for pause in (0.5, 1.0, 2.0):
        assert await webhook.step() == clock.now + pause
        assert await webhook.step() == clock.now + pause and receiver.requests.qsize() == 1
        receiver.next()
        clock.now += pause
    assert await webhook.step() is None and webhook.failures == 0 and receiver.next()


async def test_one_that_asks_for_time_gets_it(home: Home, receiver: Receiver) -> None:
    """Retry-After counts, up to the longest pause."""
    receiver.statuses, receiver.headers, clock = [429, 429], {"Retry-After": "30"}, Clock()
    made = composed(home, configured(webhook_url=receiver.url), clock)
    made.announcer.tell("batch_set_aside", **REFUSED)
    await made.step()
    assert await courier(made, "webhook").step() == clock.now + 30
    receiver.headers, clock.now = {"Retry-After": "99999"}, clock.now + 30
    assert await courier(made, "webhook").step() == clock.now + 60


async def test_what_nobody_takes_is_given_up(home: Home, receiver: Receiver) -> None:
    """A refusal at once, a failure after the hours that are set; both are told, and the next goes on."""
    receiver.statuses, clock = [404, 200, 500, 500], Clock()
    made = composed(home, configured(webhook_url=receiver.url, give_up_hours=2), clock)
    webhook = courier(made, "webhook")
    made.announcer.tell("batch_set_aside", **REFUSED)
    made.announcer.tell("promoted", **PROMOTED)
    await made.step()
    with made.announcer.watch() as events:
        assert await webhook.step() is None
        event = await anext(aiter(events))
    assert event.name == "alert_given_up" and event.facts["reason"] == "status 404"
    made.announcer.tell("batch_set_aside", **REFUSED)
    await made.step()
    clock.now += 3600
    assert await webhook.step() == clock.now + 0.5
    clock.now += 3601
    assert await webhook.step() is None and owed(home) == [("raised", ("log",)), *owed(home)[1:]]
    assert not any("webhook" in names for _, names in owed(home)) and receiver.requests.qsize() == 4


async def test_a_sink_that_is_gone_from_the_config_is_owed_nothing(home: Home, receiver: Receiver) -> None:
    """The next daemon drops it, and waits for nobody."""
    made = composed(home, configured(webhook_url=receiver.url))
    made.announcer.tell("batch_set_aside", **REFUSED)
    await made.step()
    await composed(home, configured()).step()
    assert owed(home) == [("raised", ("log",))]


# The sinks


async def test_the_signature_can_be_checked_as_the_docs_say(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program in docs/alerts.md takes what is sent, and nothing that was changed or is old."""
    answer = await Webhook(receiver.url, "GENOME_WEBHOOK_SECRET", 10.0).deliver(DELIVERY)
    assert answer.delivered and answer.said == "status 200"
    request = receiver.next()
    (program,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    genuine: Callable[[str, bytes, str], bool] = names["genuine"]
    header = request.headers["X-Genome-Signature"]
    assert genuine(SECRET, request.body, header)
    assert not genuine("another key", request.body, header)
    assert not genuine(SECRET, request.body.replace(b"warning", b"nothing"), header)
    assert not genuine(SECRET, request.body, sinks.signature(SECRET, int(time.time()) - 3600, request.body))
    assert request.message == DELIVERY.message() and request.headers["Content-Type"] == "application/json"


async def test_without_its_key_nothing_is_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is named must be there; where none is named messages go unsigned."""
    monkeypatch.delenv("GENOME_WEBHOOK_SECRET")
    answer = await Webhook(receiver.url, "GENOME_WEBHOOK_SECRET", 10.0).deliver(DELIVERY)
    assert not answer.delivered and answer.again and "GENOME_WEBHOOK_SECRET" in answer.said
    assert receiver.requests.empty()
    assert (await Webhook(receiver.url, "", 10.0).deliver(DELIVERY)).delivered
    assert "X-Genome-Signature" not in receiver.next().headers


async def test_a_receiver_that_does_not_answer_is_left(receiver: Receiver) -> None:
    """Within the time that is set; one that is not there, at once. Both are tried again."""
    receiver.free.clear()
    silent = await Webhook(receiver.url, "", 0.2).deliver(DELIVERY)
    assert (silent.delivered, silent.again) == (False, True) and "0.2 s" in silent.said
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = await Webhook(f"http://127.0.0.1:{closed.getsockname()[1]}/", "", 10.0).deliver(DELIVERY)
    assert (away.delivered, away.again) == (False, True) and "ConnectError" in away.said


@pytest.mark.parametrize(
    ("status", "delivered", "again"),
    [(200, True, True), (204, True, True), (301, False, False), (400, False, False), (401, False, False),
     (408, False, True), (410, False, False), (429, False, True), (500, False, True), (503, False, True)],
)  # fmt: skip
def test_what_a_status_means(status: int, delivered: bool, again: bool) -> None:
    """2xx took it, 408, 429 and 5xx may take it later, all others never will."""
    answer = sinks.answered(status)
    assert answer.delivered == delivered and (delivered or answer.again == again)


async def test_a_command_gets_the_message_and_no_shell(tmp_path: Path) -> None:
    """One line of JSON on its standard input; arguments mean nothing but themselves; a session of its own."""
    said = "sys.stdin.read(), sys.argv[2], os.getsid(0) == os.getpid()"
    program = f"import os, sys; print({said}, file=open(sys.argv[1], 'w'))"
    got = tmp_path / "got"
    answer = await Command((sys.executable, "-c", program, str(got), "$HOME; `id`"), 60.0).deliver(DELIVERY)
    assert answer.delivered and answer.said == "exit status 0"
    line, rest = got.read_text().split("\n", 1)
    assert json.loads(line) == DELIVERY.message() and rest.strip() == "$HOME; `id` True"


async def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    """Its exit status and its last words; one that cannot be started is named. All may be tried again."""
    answer = await Command(("sh", "-c", "echo first >&2; echo no network >&2; exit 3"), 60.0).deliver(DELIVERY)
    assert (answer.delivered, answer.again, answer.said) == (False, True, "exit status 3; no network")
    answer = await Command((str(tmp_path / "none"),), 60.0).deliver(DELIVERY)
    assert not answer.delivered and "none cannot be started" in answer.said
    large = DELIVERY.model_copy(update={"alert": DELIVERY.alert.model_copy(update={"summary": "x" * (1 << 20)})})
    assert (await Command(("true",), 60.0).deliver(large)).delivered  # it need not read


async def test_a_command_that_takes_too_long_is_ended_with_all_its_session(tmp_path: Path) -> None:
    """TERM to the session; nothing it started is left."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    keeps = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    answer = await Command(("sh", "-c", f"exec 3>{pipe}; sleep 1000 & wait"), 0.5).deliver(DELIVERY)
    assert not answer.delivered and answer.again and answer.said == "stopped after 0.5 s"
    ended, _, _ = await anyio.to_thread.run_sync(select.select, [keeps], [], [], 60)
    assert ended and os.read(keeps, 1) == b""  # the last that could write is gone
    os.close(keeps)


async def test_a_command_may_leave_something_running() -> None:
    """What it leaves holds its standard error open, and nobody waits for that."""
    answer = await Command(("sh", "-c", "sleep 1000 & echo $! >&2"), 60.0).deliver(DELIVERY)
    assert answer.delivered
    os.kill(int(answer.said.rpartition(" ")[2]), signals.SIGKILL)


@contextmanager
def journal(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(60)
        yield channel


def entry(data: bytes) -> dict[str, str]:
    """Reads the journal's native protocol."""
    fields = {}
    while data:
        name, sign, rest = re.match(rb"([A-Z_]+)([=\n])(.*)", data, re.DOTALL).groups()  # type: ignore[union-attr]
        if sign == b"=":
            value, _, data = rest.partition(b"\n")
        else:
            length = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[9 + length :]
        fields[name.decode()] = value.decode()
    return fields


async def test_the_journal_gets_an_entry(tmp_path: Path) -> None:
    """With the fields to search by: one message id a kind, the condition, the severity as its priority."""
    with journal(tmp_path / "socket") as channel:
        assert (await Journal(tmp_path / "socket").deliver(DELIVERY)).delivered
        found = entry(channel.recv(1 << 16))
        ended = DELIVERY.model_copy(update={"alert": DELIVERY.alert.model_copy(update={"resolved": 9})})
        assert (await Journal(tmp_path / "socket").deliver(ended)).delivered
        last = entry(channel.recv(1 << 16))
    assert found["MESSAGE"] == "two\nlines" and found["PRIORITY"] == "4"
    assert found["MESSAGE_ID"] == last["MESSAGE_ID"] == conditions.message_id("refused")
    assert found["GENOME_CONDITION"] == "refused/helper/git" and found["GENOME_ALERT"] == DELIVERY.id
    assert (last["MESSAGE"], last["PRIORITY"], last["GENOME_STATUS"]) == ("resolved: two\nlines", "5", "resolved")


async def test_a_journal_that_is_away_or_full_is_tried_again(tmp_path: Path) -> None:
    """Nothing waits for it."""
    assert not (await Journal(tmp_path / "socket").deliver(DELIVERY)).delivered
    with journal(tmp_path / "socket"):
        answers = [await Journal(tmp_path / "socket").deliver(DELIVERY) for _ in range(5000)]
    refused = next(answer for answer in answers if not answer.delivered)
    assert refused.again and "keep up" in refused.said


def test_the_journal_is_used_where_it_is(tmp_path: Path) -> None:
    """auto looks for the socket, on insists, off never; the log is always there."""

    def names(setting: str) -> list[str]:
        settings = configured(journal=setting).alerts
        return [sink.name for sink in sinks.configured(settings, Announcer(), tmp_path / "socket")]

    assert names("auto") == names("off") == ["log"] and names("on") == ["log", "journal"]
    with journal(tmp_path / "socket"):
        assert names("auto") == ["log", "journal"] and names("off") == ["log"]


# The verbs


@pytest.fixture
def genome(home: Home, base_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a verb in this home; (exit code, standard output)."""
    config.init(home, str(base_path))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.app, [*arguments, "--home", str(home.root)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout

    yield run
    structlog.reset_defaults()  # `alerts test` logs to the standard error it was given, which is closed by now


async def test_an_alert_ended_by_hand_is_told_by_the_daemon(home: Home, genome: Callable[..., Any]) -> None:
    """The verb works with the daemon down; whoever runs next reads what it changed."""
    made = composed(home, configured())
    made.announcer.tell("batch_set_aside", **REFUSED)
    await made.step()
    await courier(made, "log").step()
    assert "warning refused/helper/git since" in genome("alerts", "list")[1]
    assert "alert    warning refused/helper/git" in await anyio.to_thread.run_sync(lambda: genome("status")[1])
    settings = f"{home.config.read_text()}\n[alerts]\njournal = 'off'\n"
    home.config.write_text(settings.replace('# journal = "auto"', ""))
    assert genome("alerts", "resolve", "refused/helper/git") == (0, "refused/helper/git is resolved\n")
    found = json.loads(genome("alerts", "list", "--json")[1])
    assert found["open"] == [] and found["owed"][0]["sinks"] == ["log"] and found["owed"][0]["status"] == "resolved"
    assert "owed to log: refused/helper/git resolved" in genome("alerts", "list")[1]
    await made.step()
    assert courier(made, "log").alarm.event.is_set()
    await courier(made, "log").step()
    assert owed(home) == []


def test_every_sink_can_be_tried(home: Home, genome: Callable[..., Any], receiver: Receiver) -> None:
    """`alerts test` says what each answered; 7 if one failed."""
    text = home.config.read_text()
    home.config.write_text(f'{text}\n[alerts]\njournal = "off"\nwebhook_url = "{receiver.url}"\ncommand = ["true"]\n')
    code, out = genome("alerts", "test")
    assert code == 0 and "webhook: delivered, status 200" in out and "command: delivered, exit status 0" in out
    assert receiver.next().message["condition"] == "test"
    receiver.statuses = [403]
    code, out = genome("alerts", "test", "--json")
    assert code == 7
    assert {one["sink"]: (one["delivered"], one["said"]) for one in json.loads(out)}["webhook"] == (False, "status 403")
    assert not home.open_alerts.exists()


# The daemon


def test_a_killed_daemon_still_owes(home: Home, base_path: Path, receiver: Receiver) -> None:
    """kill -9 while a message waits for its answer: the next daemon sends it with the same id, and then what is new."""
    config.init(home, str(base_path))
    text = f'{home.config.read_text()}\n[alerts]\njournal = "off"\nwebhook_url = "{receiver.url}"\n'
    home.config.write_text(f"{text}patience_seconds = 0.0\nsettle_minutes = 0.0\n")
    receiver.free.clear()
    with running(home) as process:
        first = receiver.next()  # the worker is away
        process.kill()
    receiver.free.set()
    with running(home) as process:
        again = receiver.next()
        server = grpc.server(ThreadPoolExecutor(2))
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
        server.add_insecure_port(f"unix:{home.worker_socket}")
        server.start()
        last = receiver.next()
        server.stop(None).wait()
        gone = receiver.next()
        process.terminate()
        assert process.wait(60) == 0
    assert first.message == again.message and first.message["condition"] == "worker"
    assert (last.message["condition"], last.message["status"]) == ("worker", "resolved")
    assert (gone.message["condition"], gone.message["status"]) == ("worker", "raised")
    assert gone.message["id"] != first.message["id"]


async def test_what_is_told_while_the_loops_end_is_kept(
    home: Home, base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is asked to stop before its alerts had their turn writes them last of all."""
    config.init(home, str(base_path))

    async def stops(loop: loops.Alerts) -> None:
        assert [event.name for event in loop.heard] == ["started"]
        os.kill(os.getpid(), signals.SIGTERM)
        await anyio.sleep_forever()

    monkeypatch.setattr(loops.Alerts, "step", stops)
    with anyio.fail_after(60):
        await supervisor.serve(home, Config.model_validate({"base": str(base_path)}))
    assert [entry.alert.condition for entry in alerts.read(home).conditions] == ["worker"]


@contextmanager
def running(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "daemon", "daemon", "--home", str(home.root)]
    with (home.root / "daemon.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait(60)

"""Where alerts go: the log, a webhook, a command, systemd's journal. Each takes one message and says what came of it.

A sink never raises for what is wrong on the other side; `daemon.alerts` decides when it is asked again.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc

from daemon.events import Announcer
from daemon.process import Child
from genome.alerts import Delivery
from genome.conditions import message_id
from genome.config import Alerts

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
SIGNATURE, DELIVERY = "X-Genome-Signature", "X-Genome-Delivery"
"""Headers of a webhook's request: its signature, and the message's id."""
LATER = frozenset({408, 429})
"""Client errors that mean: not now."""
STOP_SECONDS = 2.0
"""Between TERM and KILL for a command that took too long."""
LAST_WORDS_BYTES, LAST_WORDS_SECONDS = 300, 0.2
"""Of a command's standard error: how much is told, and how long it is waited for once the command ended."""
PRIORITIES = {"critical": 2, "warning": 4}
"""syslog's, as the journal has them: crit, warning; a resolved message is a notice."""
NOTICE = 5


@dataclass(frozen=True)
class Answer:
    """What came of one attempt."""

    delivered: bool
    said: str
    again: bool = True
    """Whether trying the same once more could help, where it was not delivered."""
    after: float = 0.0
    """Seconds the other side asked to be left alone for."""


class Sink(Protocol):
    @property
    def name(self) -> str: ...

    async def deliver(self, delivery: Delivery) -> Answer:
        """Tries once. Returns within a limit of its own; cancelled, it leaves nothing running."""


def configured(settings: Alerts, announcer: Announcer, journal: Path = JOURNAL_SOCKET) -> tuple[Sink, ...]:
    """The sinks that genome.toml asks for; the log is always one."""
    found: list[Sink] = [Log(announcer)]
    if settings.webhook_url:
        found.append(Webhook(settings.webhook_url, settings.webhook_secret_env, settings.webhook_seconds))
    if settings.command:
        found.append(Command(settings.command, settings.command_seconds))
    if settings.journal == "on" or (settings.journal == "auto" and journal.exists()):
        found.append(Journal(journal))
    return tuple(found)


@dataclass(frozen=True)
class Log:
    """The daemon's own: an event like any other, so whoever watches events sees alerts too."""

    announcer: Announcer
    name = "log"

    async def deliver(self, delivery: Delivery) -> Answer:
        self.announcer.tell(f"alert_{delivery.alert.status}", id=delivery.id, **delivery.alert.model_dump())
        return Answer(True, "logged")


@dataclass(frozen=True)
class Webhook:
    """An HTTP POST of the message, signed. Redirects are not followed: they could lead a signed message elsewhere."""

    url: str
    secret_env: str
    seconds: float
    clock: Callable[[], float] = time.time
    name = "webhook"

    async def deliver(self, delivery: Delivery) -> Answer:
        import httpx

        body = delivery.body()
        headers = {"Content-Type": "application/json", DELIVERY: delivery.id}
        if self.secret_env:
            secret = os.environ.get(self.secret_env, "")
            if not secret:
                return Answer(False, f"${self.secret_env} is not set in this process (alerts.webhook_secret_env)")
            headers[SIGNATURE] = signature(secret, int(self.clock()), body)
        try:
            with anyio.fail_after(self.seconds):  # httpx limits each read and write, not all of them together
                async with (
                    httpx.AsyncClient(timeout=self.seconds) as client,
                    client.stream("POST", self.url, content=body, headers=headers) as response,
                ):
                    return answered(response.status_code, response.headers.get("Retry-After", ""))
        except TimeoutError:
            return Answer(False, f"no answer within {self.seconds:g} s")
        except httpx.InvalidURL as error:
            return Answer(False, f"not a usable address: {error}", again=False)
        except httpx.HTTPError as error:
            return Answer(False, f"{type(error).__name__}: {error}")


def signature(secret: str, now: int, body: bytes) -> str:
    """``t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">``. By the time in it an old message is known to be old."""
    digest = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


def answered(status: int, retry_after: str = "") -> Answer:
    """What a status code means for a message."""
    if 200 <= status < 300:
        return Answer(True, f"status {status}")
    again = status >= 500 or status in LATER
    return Answer(False, f"status {status}", again, float(retry_after) if again and retry_after.isdecimal() else 0.0)


@dataclass(frozen=True)
class Command:
    """A program in a session of its own, with the message on its standard input and never through a shell."""

    arguments: tuple[str, ...]
    seconds: float
    name = "command"

    async def deliver(self, delivery: Delivery) -> Answer:
        try:
            process = await anyio.open_process(
                self.arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Answer(False, f"{self.arguments[0]} cannot be started: {error.strerror}")
        words = bytearray()
        try:
            with anyio.move_on_after(self.seconds):
                await _talk(process, delivery.body() + b"\n", words)
        finally:
            took_too_long = process.returncode is None
            if took_too_long:
                await Child(process).stop(STOP_SECONDS)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        if took_too_long:
            return Answer(False, f"stopped after {self.seconds:g} s")
        said = words.decode(errors="replace").strip().rpartition("\n")[2]
        return Answer(process.returncode == 0, f"exit status {process.returncode}{said and f'; {said}'}")


async def _talk(process: anyio.abc.Process, message: bytes, words: bytearray) -> None:
    """Until it ends; what it leaves running may hold its standard error open for longer."""

    async def write() -> None:
        assert process.stdin is not None
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it need not read
            await process.stdin.send(message)
        await process.stdin.aclose()

    async def read() -> None:
        assert process.stderr is not None
        async for block in process.stderr:
            words.extend(block)
            del words[:-LAST_WORDS_BYTES]
        read_all.set()

    read_all = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(write)
        group.start_soon(read)
        await process.wait()
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            await read_all.wait()
        group.cancel_scope.cancel()


@dataclass(frozen=True)
class Journal:
    """systemd's journal, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry."""

    socket: Path
    name = "journal"

    async def deliver(self, delivery: Delivery) -> Answer:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(datagram(delivery), str(self.socket))
        except BlockingIOError:
            return Answer(False, "the journal does not keep up")
        except OSError as error:
            # What is too long stays too long; everything else may pass.
            return Answer(False, f"{self.socket}: {error.strerror}", again=error.errno != errno.EMSGSIZE)
        return Answer(True, "sent")


def datagram(delivery: Delivery) -> bytes:
    """One entry of the journal."""
    alert = delivery.alert
    ended = alert.status == "resolved"
    fields = {
        "MESSAGE": f"resolved: {alert.summary}" if ended else alert.summary,
        "MESSAGE_ID": message_id(alert.kind),
        "PRIORITY": str(NOTICE if ended else PRIORITIES[alert.severity]),
        "SYSLOG_IDENTIFIER": "genome",
        "GENOME_ALERT": delivery.id,
        "GENOME_CONDITION": alert.condition,
        "GENOME_SEVERITY": alert.severity,
        "GENOME_STATUS": alert.status,
    }
    return b"".join(_field(name, value.encode()) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:  # then it is no line: the length comes first, as 64 bits, little end first
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)

"""From files of an application to a file in the inbox: `genome collect`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from daemon.chat_endpoint import ChatEndpoint
from genome import collectors, files
from genome.collectors import Collected, conversations, judged, rows, transcripts
from genome.collectors.conversations import Conversation
from genome.collectors.rows import Row
from genome.collectors.turns import Reading
from genome.config import Intake
from genome.errors import InvalidConfig, InvalidInput, NotFound, Unavailable
from genome.layout import Home, check_name
from genome.signals import Defaults

AT_ONCE = 8
"""Questions the endpoint is asked at a time."""
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Order:
    """What is to be collected, and for whom."""

    collector: str
    paths: Sequence[Path]
    persona: str
    domain: str
    mapping: dict[str, str] = field(default_factory=dict)


@dataclass
class Harvest:
    """What was found."""

    collected: list[Collected] = field(default_factory=list)
    """Each signal once, in the order of the files."""
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    """File, row and reason."""
    asked: int = 0
    """Turns a language model was asked about."""
    duplicates: int = 0
    """Signals that say what another of these says, or have its id."""
    silent: int = 0
    """Rows that could be read, and in which nothing was found."""


def gather(order: Order, now: float, limits: Intake, endpoint: ChatEndpoint | None = None) -> Harvest:
    """Reads all files of an order. ``endpoint``: asked about turns of transcripts in which the rules found nothing.

    InvalidInput if no row of any file could be read.
    """
    check_name(order.persona, "persona")
    check_name(order.domain, "domain")
    defaults = Defaults(int(now * 1000), order.persona, order.domain)
    harvest, known, read = Harvest(), set(), 0
    for path in order.paths:
        found = list(rows.read(_content(path), str(path)))
        if endpoint and order.collector == "transcripts":
            collected, refused, asked = anyio.run(_classified, found, defaults, endpoint)
            harvest.asked += asked
        else:
            collected, refused = collectors.gather(order.collector, found, defaults, order.mapping)
        read += len(found) - len(refused)
        harvest.silent += len(found) - len(refused) - len({one.row for one in collected})
        harvest.refused += [(str(path), row.number, row.trouble) for row in refused]
        for one in collected:
            if len(_line(one)) > limits.max_line_bytes:
                reason = f"a signal is longer than {limits.max_line_bytes} bytes (intake.max_line_bytes)"
                harvest.refused.append((str(path), one.row, reason))
            elif one.signal.id in known:
                harvest.duplicates += 1
            else:
                known.add(one.signal.id)
                harvest.collected.append(one)
    if harvest.refused and not read:
        path, number, reason = harvest.refused[0]
        raise InvalidInput(f"no row could be read; the first, {path}:{number}: {reason}", "See docs/collectors.md")
    return harvest


def deliver(home: Home, order: Order, harvest: Harvest) -> tuple[Path, bool]:
    """Puts what was found into the inbox, whole; where it lies, and whether it lay there before.

    The name follows from the signals, so the same ones are put there once; and the buffer knows those it took by their
    ids.
    """
    ids = sorted(one.signal.id for one in harvest.collected)
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    path = home.inbox / order.persona / order.domain / f"collect-{order.collector}-{digest}.jsonl"
    with files.locked(home.lock):
        for left in list(home.inbox.rglob(f"{files.UNFINISHED}collect-*")):  # a starting daemon leaves the inbox alone
            files.remove(left)
        made = files.create(path, b"".join(map(_line, harvest.collected)))
    return path, not made


def _line(one: Collected) -> bytes:
    return one.signal.model_dump_json(exclude_none=True).encode() + b"\n"


def _content(path: Path) -> bytes:
    if str(path) == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None


async def _classified(
    found: Sequence[Row], defaults: Defaults, endpoint: ChatEndpoint
) -> tuple[list[Collected], list[Row], int]:
    """Transcripts, read by rules and then by a language model. Signals, refused rows, and how often it was asked."""
    refused: list[Row] = []
    read: list[tuple[Row, Conversation, dict[int, Reading]]] = []
    for row in found:
        try:
            if row.trouble:
                raise InvalidInput(row.trouble)
            conversation = conversations.read(row.value)
            _check_text(conversation)
            read.append((row, conversation, transcripts.readings(conversation)))
        except InvalidInput as error:
            refused.append(Row(row.number, row.value, str(error)))
    doubts = [((each[1], each[2]), place) for each in read for place in transcripts.doubtful(each[2])]
    await _ask(doubts, endpoint)
    collected: list[Collected] = []
    for row, conversation, readings in read:
        try:
            collected += collectors.checked(transcripts.signals(conversation, readings), defaults, row.number)
        except InvalidInput as error:  # what was asked about the others is paid for
            refused.append(Row(row.number, row.value, str(error)))
    return collected, refused, len(doubts)


def _check_text(conversation: Conversation) -> None:
    """Raises InvalidInput if it could not be sent to a model."""
    for said in conversation.messages:
        try:
            said.text.encode()
        except UnicodeEncodeError:
            raise InvalidInput("a message holds half of a surrogate pair, which is no text") from None


async def _ask(doubts: Sequence[tuple[tuple[Conversation, dict[int, Reading]], int]], endpoint: ChatEndpoint) -> None:
    """Puts what the model reads into the readings. The first failure ends all, for half of the turns read would be
    collected as if it were all."""
    limiter, failed = anyio.CapacityLimiter(AT_ONCE), []

    async def one(conversation: Conversation, readings: dict[int, Reading], place: int) -> None:
        question, answer, turn = (said.text for said in conversation.spoken()[place - 2 : place + 1])
        async with limiter:
            try:
                reply = await endpoint.complete(judged.messages(question, answer, turn), judged.MAX_TOKENS)
            except (InvalidConfig, Unavailable) as error:
                failed.append(error)
                group.cancel_scope.cancel()
            except InvalidInput:
                pass  # the model refuses this turn, as some do: it stays unread
            else:
                readings[place] = judged.reading(reply, turn)

    try:
        async with anyio.create_task_group() as group:
            for (conversation, readings), place in doubts:
                group.start_soon(one, conversation, readings, place)
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    if failed:
        raise failed[0]

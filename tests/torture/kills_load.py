"""What is fed to the daemon while it is killed: seeded lines, by file and over gRPC, and what became of them.

The content of line ``number`` follows from the seed and the number alone, so whoever sends it, and however often, it
is the same signal. Files have the even numbers, gRPC the odd ones, and both send some of the other's again.
"""

from __future__ import annotations

import json
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from genome.layout import Home
from genome.v1 import learning_pb2 as pb
from genome.v1 import learning_pb2_grpc

PAIRS = (("helper", "git"), ("helper", "docs"), ("writer", "mail"), ("writer", "notes"))
CALL_SECONDS = 10.0
LINES_A_FILE, SIGNALS_A_CALL = (8, 20), (4, 12)


@dataclass
class Injected:
    """What the daemon owes. Each part is written by one thread and read when both have ended."""

    accepted: set[int] = field(default_factory=set)
    """Numbers of good lines that were moved into the inbox or acknowledged over gRPC."""
    refused: Counter[bytes] = field(default_factory=Counter)
    """Bad lines that were moved into the inbox."""
    sent: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What it answered and should not have."""


def content(seed: int, number: int) -> dict[str, Any]:
    """A signal, in the words that a line and a gRPC message share."""
    chance = random.Random(f"{seed} {number}")
    persona, domain = PAIRS[chance.randrange(len(PAIRS))]
    signal = {"persona_id": persona, "domain": domain, "input": f"question {number}"}
    if chance.random() < 0.5:
        signal["id"] = f"given-{number}"
    if chance.random() < 0.05:
        return signal | {"type": "mistake", "wrong_output": f"wrong {number}"}  # evidence: there is nothing to learn
    return signal | {"type": "correction", "correct_output": f"answer {number}"}


def number_of(question: str) -> int:
    return int(question.removeprefix("question "))


class Producer(threading.Thread):
    """Makes what it is ordered. So much for every kill, and not for every second: a slow machine has the same to do."""

    def __init__(self, seed: int, injected: Injected) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.seed, self.injected = seed, injected
        self.chance = random.Random(f"{seed} {self.name}")
        self.own = 0
        self.orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def order(self, round_number: int) -> None:
        self.orders.put(round_number)

    def end(self) -> None:
        """What was ordered is still made."""
        self.orders.put(None)

    def run(self) -> None:
        try:
            for round_number in iter(self.orders.get, None):
                self.make(round_number)
        except Exception as error:  # a thread's end would be a test without load
            self.injected.wrong.append(f"{self.name}: {error!r}")

    def make(self, round_number: int) -> None:
        raise NotImplementedError

    def numbers(self, parity: int, count: int) -> Iterator[int]:
        """Mostly new ones; some a second time, some that the other producer has sent or will send."""
        for index in range(count):
            kind = self.chance.random()
            if index and kind < 0.10:
                yield 2 * self.chance.randrange(self.own) + parity
            elif index and kind < 0.15:
                yield 2 * self.chance.randrange(self.own) + 1 - parity
            else:
                yield 2 * self.own + parity
                self.own += 1


class Files(Producer):
    """Moves whole files into the inbox, at its top and in a persona's and domain's directory."""

    def __init__(self, seed: int, injected: Injected, home: Home, aside: Path) -> None:
        super().__init__(seed, injected)
        self.home, self.aside = home, aside
        self.bad = 0

    def make(self, round_number: int) -> None:
        pair = self.chance.choice((None, *PAIRS))
        lines, good = [], set()
        for number in self.numbers(0, self.chance.randint(*LINES_A_FILE)):
            good.add(number)
            lines.append(self._line(number, pair))
            if self.chance.random() < 0.1:
                lines.append(self._bad_line())
                self.injected.refused[lines[-1]] += 1
        end = self.chance.choice((b"\n", b"\n", b"\r\n", b""))
        path = self.aside / f"{round_number:06d}.jsonl"
        path.write_bytes(b"\n".join(lines) + end)
        directory = self.home.inbox.joinpath(*pair) if pair else self.home.inbox
        directory.mkdir(parents=True, exist_ok=True)
        path.rename(directory / path.name)
        self.injected.accepted |= good
        self.injected.sent["lines"] += len(lines)
        self.injected.sent["files"] += 1

    def _line(self, number: int, pair: tuple[str, str] | None) -> bytes:
        said = content(self.seed, number)
        if (said["persona_id"], said["domain"]) == pair:
            del said["persona_id"], said["domain"]  # the place says it
        return json.dumps(said).encode()

    def _bad_line(self) -> bytes:
        """One that was not there before."""
        self.bad += 1
        form = self.chance.choice((
            '{{"type": "correction", "input": "bad {0}"', '{{"type": "correction", "note": "bad {0}"}}', '"bad {0}"',
            '{{"type": "correction", "input": "bad {0}", "correct_output": "x", "persona_id": "No Name"}}',
        ))  # fmt: skip
        return form.format(self.bad).encode() + (b"\xff" if self.chance.random() < 0.2 else b"")


class Calls(Producer):
    """Submits over gRPC until the daemon says OK; nothing before that counts."""

    def __init__(self, seed: int, injected: Injected, home: Home) -> None:
        super().__init__(seed, injected)
        self.home = home

    def make(self, round_number: int) -> None:
        messages, good = [], set()
        for _ in range(self.chance.randint(1, 3)):
            numbers = list(self.numbers(1, self.chance.randint(*SIGNALS_A_CALL)))
            signals = [content(self.seed, number) for number in numbers]
            good.update(numbers)
            bad = self.chance.randrange(len(signals)) if self.chance.random() < 0.2 else None
            if bad is not None:
                signals.insert(bad, signals[0] | {"id": "", "domain": "No Name"})
            messages.append((signals, bad))
        while not self._submitted(messages):
            self.injected.sent["calls again"] += 1
        self.injected.accepted |= good
        self.injected.sent["signals"] += sum(len(signals) for signals, _ in messages)
        self.injected.sent["calls"] += 1

    def _submitted(self, messages: list[tuple[list[dict[str, Any]], int | None]]) -> bool:
        requests = [
            pb.SubmitSignalsRequest(signals=[pb.TrainingSignal(**said) for said in signals]) for signals, _ in messages
        ]
        # A process that was killed may leave a channel's connection behind: every call gets its own.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50),
                   ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]  # fmt: skip
        with grpc.insecure_channel(f"unix:{self.home.daemon_socket}", options=options) as channel:
            stub = learning_pb2_grpc.LearningServiceStub(channel)
            try:
                answers = list(stub.SubmitSignals(iter(requests), wait_for_ready=True, timeout=CALL_SECONDS))
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.injected.wrong.append(f"SubmitSignals answered {error.code()}: {error.details()}")
                return False
        for (signals, bad), answer in zip(messages, answers, strict=True):
            refused = [rejection.index for rejection in answer.rejected]
            if refused != ([] if bad is None else [bad]) or answer.accepted + answer.duplicates != len(signals) - len(
                refused
            ):
                self.injected.wrong.append(f"SubmitSignals took {len(signals)} signals, {bad} bad, as {answer}")
        return True

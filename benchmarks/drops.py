"""Processes that files are dropped for, and how long each takes to say that it has one."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from genome import config
from genome.layout import Home

SHIPPED_BASE = Path(__file__).resolve().parents[1] / "daemon" / "demo" / "base"
ANSWER_SECONDS = 300.0
APPENDING = """
import os, sys
folder = sys.argv[1]
kept = os.open(os.path.join(os.path.dirname(folder), "kept.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def take(name):
    with open(os.path.join(folder, name), "rb") as stream:
        os.write(kept, stream.read())
    os.fsync(kept)
    print(name, flush=True)
"""
FLOOR = (
    APPENDING
    + """
from inotify_simple import INotify, flags
watch = INotify()
watch.add_watch(folder, flags.MOVED_TO)
print("ready", flush=True)
while True:
    for event in watch.read():
        take(event.name)
"""
)
WATCHFILES = (
    APPENDING
    + """
import anyio, watchfiles
async def main():
    stop = anyio.Event()
    changes = watchfiles.awatch(folder, stop_event=stop, yield_on_timeout=True, rust_timeout=1000)
    taken = set()
    async for found in changes:
        if not found and not taken:
            print("ready", flush=True)
        for name in sorted(os.path.basename(path) for _, path in found):
            if name.endswith(".jsonl") and name not in taken:
                taken.add(name)
                take(name)
anyio.run(main)
"""
)


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


@dataclass
class Taker:
    """A process that takes what is moved into its inbox, and says so on a pipe."""

    process: subprocess.Popen[bytes]
    inbox: Path
    said: queue.Queue[tuple[float, bytes]] = field(default_factory=queue.Queue)
    dropped: int = 0

    def listen(self) -> None:
        stream = self.process.stdout or self.process.stderr
        assert stream is not None
        for line in stream:
            self.said.put((time.perf_counter(), line))

    def taken(self, line: bytes) -> int:
        """How many files, or lines, what it said acknowledges."""
        return 1

    def acknowledge(self, count: int) -> list[float]:
        """When each of the next ``count`` was."""
        times: list[float] = []
        while len(times) < count:
            at, line = self.said.get(timeout=ANSWER_SECONDS)
            times += [at] * self.taken(line)
        return times

    def drop(self, data: bytes) -> float:
        """Moves one file in; returns when."""
        self.dropped += 1
        aside = self.inbox.parent / f"{os.getpid()}-{self.dropped}.aside"
        aside.write_bytes(data)
        aside.rename(self.inbox / f"{os.getpid()}-{self.dropped:06d}.jsonl")
        return time.perf_counter()

    def distinct(self, line: bytes) -> bytes:
        return line.replace(b'"input": "', b'"input": "%d-%d-%d ' % (time.time_ns(), os.getpid(), self.dropped)) + b"\n"

    def one_by_one(self, line: bytes, count: int) -> list[float]:
        found = []
        for _ in range(count):
            started = self.drop(self.distinct(line))
            found.append(self.acknowledge(1)[0] - started)
        return found

    def stream(self, line: bytes, count: int, every_seconds: float) -> list[float]:
        """A file every so many seconds, whatever the taker does."""
        started, begin = [], time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, begin + number * every_seconds - time.perf_counter()))
            started.append(self.drop(self.distinct(line)))
        return [at - start for at, start in zip(self.acknowledge(count), started, strict=True)]

    def end(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(60)


@dataclass
class Daemon(Taker):
    home: Home = field(default_factory=lambda: Home(Path()))

    def taken(self, line: bytes) -> int:
        told = json.loads(line)
        return int(told["accepted"]) if told.get("event") == "ingested" else 0

    def started(self) -> None:
        while json.loads(self.said.get(timeout=ANSWER_SECONDS)[1]).get("event") != "started":
            pass

    def take(self, lines: list[bytes], per_file: int) -> None:
        for start in range(0, len(lines), per_file):
            self.drop(b"\n".join(lines[start : start + per_file]) + b"\n")
        self.acknowledge(len(lines))

    def memory_mb(self) -> float:
        """Resident, with the pages of mapped files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def cpu_seconds(self) -> float:
        """Of user and system together, since its start."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextmanager
def floor(root: Path) -> Iterator[Taker]:
    """A blocked read of inotify, an append, one fsync."""
    yield from _program(root, FLOOR)


@contextmanager
def watchfiles_default(root: Path) -> Iterator[Taker]:
    """watchfiles.awatch as it comes, an append, one fsync a file."""
    yield from _program(root, WATCHFILES)


def _program(root: Path, text: str) -> Iterator[Taker]:
    inbox = root / "inbox"
    inbox.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", text, str(inbox)], stdout=subprocess.PIPE)
    taker = Taker(process, inbox)
    threading.Thread(target=taker.listen, daemon=True).start()
    taker.acknowledge(1)
    yield taker
    taker.end()


@contextmanager
def daemon(root: Path) -> Iterator[Daemon]:
    """The real one, without a worker; nothing is ever due for training."""
    home = Home(root)
    if not home.config.exists():
        config.init(home, str(SHIPPED_BASE))
        home.config.write_text(
            f"base = {json.dumps(str(SHIPPED_BASE))}\n[intake]\ninbox_retention_hours = 0.0\nsettle_seconds = 0.0\n"
            "[triggers.threshold]\nmin_examples = 1000000000\nmax_wait_hours = 1000000.0\n"
        )
    made = _start(home)
    made.started()
    yield made
    if made.process.poll() is None:
        made.end()


def _start(home: Home) -> Daemon:
    command = [sys.executable, "-m", "daemon", "daemon", "--home", str(home.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    made = Daemon(process, home.inbox, home=home)
    threading.Thread(target=made.listen, daemon=True).start()
    return made


def time_to_first_ack(root: Path, line: bytes, ended_by: int, before: list[bytes] | None = None) -> float:
    """Seconds from the start of a process to its word on a file that lay there, after one ended by a signal."""
    with daemon(root) as ours:
        if before:
            ours.take(before, 100)
        ours.end(ended_by)
    home = Home(root)
    data = line.replace(b'"input": "', b'"input": "%d ' % time.time_ns())
    (root / "aside").write_bytes(data + b"\n")
    (root / "aside").rename(home.inbox / f"{time.time_ns()}.jsonl")
    begun = time.perf_counter()
    made = _start(home)
    at = made.acknowledge(1)[0]
    made.end()
    return at - begun

"""Intake: lines made durable, from a file and over gRPC, against the floor of the work and of the operating system.

    python -m benchmarks.ingest --json

The floor of a line is what nobody can leave out, each alone and added up: decode it, encode it, hash it, look its id
up, append it and sync. The floor of a drop is a blocked read of inotify, an append and one fsync. Everything that has
"daemon" in it is the real one in a process of its own; acknowledged means that it said `ingested`, which it does after
the sync.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import string
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import msgspec

from benchmarks import drops
from benchmarks.measure import Report, arguments, in_turns, ms, seconds
from genome.buffer import Buffer
from genome.config import Intake
from genome.intake import Chunk, Drop, Taken
from genome.layout import Home
from genome.lines import Camel, Line, Reader
from genome.v1 import learning_pb2 as pb
from genome.v1 import learning_pb2_grpc

BATCH = 200
"""Lines committed together, as many as a message over gRPC holds in the other measurement."""
LINES = 20_000
PER_MESSAGE = 200
STREAM_SECONDS = 0.02
IDLE_SECONDS = 5.0
WARM_UP = 50_000
FILE_LINES = 5_000


def corpus(count: int, seed: int = 0, start: int = 0) -> list[bytes]:
    """Corrections of some 650 bytes a line, all different."""
    choose = random.Random(seed)
    words = ["".join(choose.choices(string.ascii_lowercase, k=choose.randint(3, 9))) for _ in range(3000)]
    return [
        json.dumps(
            {
                "type": "correction",
                "personaId": "helper-ai",
                "domain": "typescript",
                "input": f"{start + number} {' '.join(choose.choices(words, k=21))}",
                "wrongOutput": " ".join(choose.choices(words, k=22)),
                "correctOutput": " ".join(choose.choices(words, k=28)),
                "source": "human",
                "timestamp": 1763600000000 + number,
            }
        ).encode()
        for number in range(count)
    ]


@contextmanager
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="genome-bench-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def batches(lines: list[bytes], size: int) -> list[list[bytes]]:
    return [lines[start : start + size] for start in range(0, len(lines), size)]


def committed(lines: list[bytes], size: int) -> float:
    """Seconds a line for the buffer itself."""
    with folder() as root:
        home = Home(root)
        home.inbox.mkdir(parents=True)
        drop = Drop(home.inbox / "a.jsonl", "key", (0, 0, 0, 0), "", "")
        chunks, offset = [], 0
        for batch in batches(lines, size):
            data = b"\n".join(batch) + b"\n"
            chunks.append(Chunk(drop, Taken(offset, 0), Taken(offset + len(data), 0), data, 1))
            offset += len(data)
        buffer = Buffer(home, Intake())
        buffer.load()
        return seconds(lambda: [buffer.commit([chunk], 1763600000.0) for chunk in chunks]) / len(lines)


def floor_parts(lines: list[bytes], size: int) -> dict[str, Callable[[], float]]:
    """Seconds a line for each thing alone."""
    decode, encode = msgspec.json.Decoder(Camel).decode, msgspec.json.Encoder().encode
    defaults = Buffer(Home(Path()), Intake()).defaults(1763600000000)
    reader = Reader()
    signals: list[Line] = [reader.line(line, defaults) for line in lines]
    ids = [found.id for found in signals]
    encoded = [encode(found) for found in signals]

    def dedupe() -> None:
        known: set[str] = set()
        for name in ids:
            if name not in known:
                known.add(name)

    def each(work: Callable[[], object]) -> Callable[[], float]:
        return lambda: seconds(work) / len(lines)

    return {
        "decode": each(lambda: [decode(line) for line in lines]),
        "encode": each(lambda: [encode(found) for found in signals]),
        "hash": each(lambda: [hashlib.sha256(line).hexdigest() for line in encoded]),
        "dedupe": each(dedupe),
        "append and sync": lambda: appended(encoded, size),
    }


def appended(encoded: list[bytes], size: int) -> float:
    """Seconds a line to write and sync ``size`` lines at a time."""
    with folder() as root:
        descriptor = os.open(root / "segment.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def work() -> None:
            for batch in batches(encoded, size):
                os.write(descriptor, b"\n".join(batch) + b"\n")
                os.fsync(descriptor)

        taken = seconds(work) / len(encoded)
        os.close(descriptor)
        return taken


def durable(report: Report, rounds: int) -> None:
    lines = corpus(LINES)
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: committed(lines, BATCH),
        "ours, 100 at a time": lambda: committed(lines, 100),
        "ours, 1000 at a time": lambda: committed(lines, 1000),
        "one at a time": lambda: appended(lines[:1000], 1),
        **floor_parts(lines, BATCH),
    }
    found = in_turns(sides, rounds)
    floor = sum(found[name] for name in floor_parts(lines[:1], 1))
    report.count("lines_per_s", round(1 / found["ours"]), "≥ 120000")
    said = [f"{1e6 * found['ours']:.2f} µs", f"{1e6 * floor:.2f} µs"]
    report.ratio("over_floor", "a line", *said, floor / found["ours"], "≥ 0.7")
    report.ratio("over_fsync_per_line", "a line", said[0], f"{1e6 * found['one at a time']:.0f} µs",
                 found["one at a time"] / found["ours"], "≥ 15")  # fmt: skip
    for name in floor_parts(lines[:1], 1):
        report.remark(f"  of the floor: {name}", "", f"{1e6 * found[name]:.2f} µs", found[name] / floor)
    for size in (100, 1000):
        taken = found[f"ours, {size} at a time"]
        report.remark(f"  {size} lines at a time", f"{1e6 * taken:.2f} µs", said[0], found["ours"] / taken)


def acknowledged(report: Report, count: int) -> None:
    """From the rename into the inbox to the word that it is durable, one drop after the other and in a stream."""
    line = corpus(1)[0]
    with folder() as root:
        with drops.floor(root / "floor") as floor:
            floor_idle = statistics.median(floor.one_by_one(line, count))
        with drops.watchfiles_default(root / "peer") as peer:
            peer_stream = drops.percentile(peer.stream(line, count, STREAM_SECONDS), 0.99)
        with drops.daemon(root / "daemon") as ours:
            time.sleep(IDLE_SECONDS)  # its start is over
            busy = ours.cpu_seconds()
            time.sleep(IDLE_SECONDS)
            busy = ours.cpu_seconds() - busy
            ours_idle = statistics.median(ours.one_by_one(line, count))
            ours_stream = drops.percentile(ours.stream(line, count, STREAM_SECONDS), 0.99)
    report.remark("  CPU of an idle daemon", ms(busy / IDLE_SECONDS), "a second", busy / IDLE_SECONDS)
    report.ratio("drop_to_ack_p50_over_floor", "daemon", ms(ours_idle), ms(floor_idle), ours_idle / floor_idle, "≤ 12")
    report.ratio("stream_p99_over_watchfiles_default", "daemon", ms(ours_stream), ms(peer_stream),
                 ours_stream / peer_stream, "≤ 0.02")  # fmt: skip


def over_grpc(report: Report, rounds: int, count: int) -> None:
    rates = []
    with folder() as root, drops.daemon(root) as ours:
        for turn in range(rounds):
            signals = [_message(json.loads(line)) for line in corpus(count, turn, turn * count)]
            requests = [pb.SubmitSignalsRequest(signals=batch) for batch in batches(signals, PER_MESSAGE)]
            with grpc.insecure_channel(f"unix:{ours.home.daemon_socket}") as channel:
                stub = learning_pb2_grpc.LearningServiceStub(channel)
                started = time.perf_counter()
                accepted = sum(answer.accepted for answer in stub.SubmitSignals(iter(requests)))
                rates.append(accepted / (time.perf_counter() - started))
            if accepted != count:
                raise AssertionError(f"{accepted} of {count} signals were accepted")
    report.count("grpc_signals_per_s", round(statistics.median(rates)), "≥ 60000")


def _message(fields: dict[str, object]) -> pb.TrainingSignal:
    return pb.TrainingSignal(**{"".join(f"_{c.lower()}" if c.isupper() else c for c in key): value
                                for key, value in fields.items()})  # fmt: skip


def history(report: Report, count: int) -> None:
    """A million signals dropped into one daemon: what it grew by, and how it starts with them."""
    with folder() as root:
        with drops.daemon(root) as ours:
            ours.take(corpus(WARM_UP), FILE_LINES)
            memory, files = ours.memory_mb(), ours.open_files()
            started = time.perf_counter()
            for part in range(count // WARM_UP):
                ours.take(corpus(WARM_UP, part + 1, (part + 1) * WARM_UP), FILE_LINES)
            rate = count / (time.perf_counter() - started)
            report.remark("  of them a second, dropped as files", f"{rate:.0f}", "", rate)
            report.ratio("rss_growth_mb", "daemon", f"{ours.memory_mb():.0f} MB", f"{memory:.0f} MB",
                         ours.memory_mb() - memory, "≤ 40")  # fmt: skip
            report.count("open_files_growth", ours.open_files() - files, "0")
            ours.end(signal.SIGTERM)
        line, clean, recovered = corpus(1)[0], [], []
        for _ in range(5):
            clean.append(drops.time_to_first_ack(root, line, signal.SIGTERM))
            recovered.append(drops.time_to_first_ack(root, line, signal.SIGKILL, before=corpus(1000, int(time.time()))))
    took = statistics.median(recovered[1:]), statistics.median(clean[1:])
    report.ratio("recovery_over_clean_start", "daemon", ms(took[0]), ms(took[1]), took[0] / took[1], "≤ 2")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--signals", type=int, default=1_000_000, help="of the daemon that grows old")
    parser.add_argument("--grpc-signals", type=int, default=100_000, help="sent in one stream")
    parser.add_argument("--drops", type=int, default=300, help="files of the latency measurements")
    chosen = parser.parse_args()
    report = Report("Intake")
    durable(report, chosen.rounds)
    acknowledged(report, chosen.drops)
    over_grpc(report, min(3, chosen.rounds), chosen.grpc_signals)
    if chosen.signals:
        history(report, chosen.signals)
    report.show(chosen.json)


if __name__ == "__main__":
    main()

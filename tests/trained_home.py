"""A home in which versions were trained, one on the other, by jobs the daemon's own code orders."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import whole_home
from fixed import NOW

from daemon import orders
from genome import adapters, batches, fsck, jobs, registry, rejected, retraction
from genome.batches import Batch, HeldOutPolicy
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.jobs import JobDirectory, Result
from genome.layout import Home
from genome.lines import from_signal
from genome.quality import Verdict
from genome.training import Event

CONFIG = Config.model_validate(
    {"base": "base", "gate": {"anchors": 0, "min_held_out": 2},
     "training": {"trainer": "torch", "anchor_weight": 0, "replay_fraction": 0.25}}
)  # fmt: skip
POLICY = HeldOutPolicy(0.3, 150)
PERSONA, DOMAIN = "helper", "git"
SECRET = b"xyzzy-secret"
Make = Callable[..., Any]


@dataclass
class TrainedHome:
    home: Home
    days: int = 0
    domain: str = DOMAIN
    """Whose batches are formed."""

    def accept(self, lines: Iterable[Any]) -> None:
        into = Buffer(self.home, Intake())
        into.load()
        into.accept([from_signal(line) for line in lines], NOW + self.days * whole_home.DAY)
        into.flush()

    def batch(self, lines: Iterable[Any]) -> Batch:
        """A queued batch."""
        self.days += 1
        self.accept(lines)
        made = batches.form(self.home, PERSONA, self.domain, "test", NOW + self.days * whole_home.DAY, POLICY)
        assert made is not None
        return made

    def order(self, batch: Batch) -> JobDirectory:
        return jobs.find(self.home, orders.order(self.home, CONFIG, batch, Path("base"), whole_home.BASE).id)

    def train(self, directory: JobDirectory) -> str:
        """The candidate of a job, installed as the runner does it."""
        job = directory.job()
        directory.record(Event(event="started"))
        examples = jobs.read_examples(directory.examples)
        described = {
            "id": str(adapters.next_id(self.home, job.persona, job.domain)), "base_fingerprint": whole_home.BASE,
            "parent": job.parent, "batch": job.batch, "job": job.id, "created": int(time.time() * 1000),
            "signals": tuple(example.id for example in examples if not example.anchor),
        }  # fmt: skip
        made = adapters.install(self.home, whole_home.weights(len(adapters.list_ids(self.home))), "base", described)
        Result(adapter=made.id).write(directory.result_file)
        return made.id

    def judge(self, directory: JobDirectory, promote: bool = True) -> None:
        job, candidate = directory.job(), (directory.result() or Result()).adapter or ""
        Verdict(job=job.id, candidate=candidate, incumbent=(), promote=promote, reason="test", findings=(),
                created=0).write(directory.verdict_file)  # fmt: skip
        batch = batches.find(self.home, job.batch)
        if promote:
            registry.promote(self.home, candidate, NOW, "better", job.id)
            batches.archive(self.home, batch)
        else:
            batches.set_aside(self.home, batch, "worse")
        jobs.complete(self.home, directory)

    def turn(self, lines: Iterable[Any], promote: bool = True) -> str:
        """Signals to their verdict; the version's id."""
        return self.carry_through(self.batch(lines), promote)

    def carry_through(self, batch: Batch, promote: bool = True) -> str:
        directory = self.order(batch)
        made = self.train(directory)
        self.judge(directory, promote)
        return made


def texts(home: Home, wanted: bytes) -> list[Path]:
    """Files of a home, but the inbox, that hold some text, unpacked where they are compressed, and decoded."""
    import zstandard

    found = []
    for path in sorted(home.root.rglob("*")):
        if not path.is_file() or path.is_relative_to(home.inbox):
            continue
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        if path.parent == home.rejected:
            data += b"".join(line.raw_bytes for _, line in rejected.scan(path, 0)) if path != home.retried else b""
        if wanted in data:
            found.append(path)
    return found


def secret(signal: Make, number: int = 0, **fields: Any) -> Any:
    """A signal whose text is found nowhere else."""
    text = SECRET.decode()
    given = {"input": f"{text} question {number}", "wrongOutput": f"{text} no", "correctOutput": f"{text} {number}"}
    return signal(number, **{**given, "context": text, "session": text, "id": "the-secret", **fields})


def retract(home: Home, signal_id: str = "the-secret") -> retraction.Outcome:
    return retraction.retract(home, signal_id, "by mistake", NOW)


def whole(home: Home) -> dict[str, int]:
    """The counts of a home in which nothing is wrong."""
    report = fsck.check(home)
    assert [f"{problem.path}: {problem.what}" for problem in report.problems] == []
    counts = dict(report.counts)
    assert counts.pop("accepted") == sum(counts.values()) - counts.pop("rejected")
    return counts


def trains(signal: Make, trained: TrainedHome, first: int, **fields: Any) -> list[Any]:
    """Ten signals with the secret among them, which is one that is not held out."""
    for number in range(first, first + 1000):
        lines = [secret(signal, number, **fields), *(signal(first + 2000 + i) for i in range(9))]
        if "the-secret" not in batches.hold_out([from_signal(line) for line in lines], POLICY):
            return lines
    raise AssertionError("it is always held out")

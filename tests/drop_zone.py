"""A drop zone with the loop that takes from it, driven one look at a time, by a clock that only tests move."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from fixed import NOW

from daemon import ingest
from genome import batches, rejected, segments
from genome.buffer import Buffer
from genome.config import Config
from genome.layout import Home

SETTLE = 2.0


@dataclass
class Clock:
    """Stands in for the module ``time``."""

    now: float = NOW

    def time(self) -> float:
        return self.now


@dataclass
class Told:
    """Stands in for the announcer and for the planner's alarm."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def tell(self, name: str, **facts: Any) -> None:
        json.dumps(facts).encode()  # what is told can be written down
        self.events.append((name, facts))

    def ring(self) -> None:
        pass

    def names(self) -> list[str]:
        """Of the events since the last call, but for what was ingested."""
        names = [name for name, _ in self.events if name != "ingested"]
        self.events.clear()
        return names


def line(number: int, **fields: Any) -> bytes:
    said = {"type": "correction", "personaId": "helper", "domain": "git", "input": f"question {number}",
            "correctOutput": f"answer {number}", **fields}  # fmt: skip
    return json.dumps(said).encode()


def lines(*numbers: int) -> bytes:
    return b"".join(line(number) + b"\n" for number in numbers)


class DropZone:
    def __init__(self, home: Home, monkeypatch: pytest.MonkeyPatch, **intake: Any) -> None:
        self.home, self.clock = home, Clock()
        self.config = Config.model_validate(
            {"base": "x", "intake": {"settle_seconds": SETTLE, "min_free_mb": 0, **intake}}
        )
        monkeypatch.setattr(ingest, "time", self.clock)
        self.start()

    def start(self) -> None:
        """As a daemon does, also after a crash."""
        self.told = Told()
        self.buffer = Buffer(self.home, self.config.intake)
        self.buffer.load()
        self.ingest = ingest.Ingest(self.home, self.config, self.buffer, self.told, self.told, self.told)  # type: ignore[arg-type]

    def look(self, after: float = 0.0) -> float | None:
        """One look at the drop zone, and in how many seconds it wants the next."""
        self.clock.now += after
        again = anyio.run(self.ingest.step)
        return None if again is None else again - self.clock.now

    def put(self, name: str, data: bytes, age: float = 60.0) -> Path:
        """Moves a file in, last changed ``age`` seconds ago. Over one that is there: as another file."""
        path, aside = self.home.inbox / name, self.home.root / "aside"
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        self.touch(aside, age)
        return aside.rename(path)

    def append(self, path: Path, data: bytes, age: float = 0.0) -> None:
        with path.open("ab") as stream:
            stream.write(data)
        self.touch(path, age)

    def rewrite(self, path: Path, data: bytes) -> None:
        """The same file with other content."""
        path.write_bytes(data)
        self.touch(path, 0.0)

    def touch(self, path: Path, age: float) -> None:
        os.utime(path, (self.clock.now - age,) * 2)

    def stored(self) -> list[str]:
        """What was asked by every stored signal, sorted; one that is stored twice stands there twice."""
        paths = [path for place in self.home.domains() for path in batches.all_segments(self.home, *place)]
        return sorted(stored.signal.input for stored in segments.scan_all(paths))

    def has(self, *numbers: int) -> bool:
        """Whether just these questions are stored, once each."""
        return self.stored() == sorted(f"question {number}" for number in numbers)

    def refused(self) -> Counter[bytes]:
        return Counter(found.raw_bytes for found in rejected.read(self.home))

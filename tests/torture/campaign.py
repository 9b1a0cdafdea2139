"""What every campaign shares: a forked process a run, points to visit, and a report.

A campaign is a program of its own, so that the process it forks from has imported everything and started nothing:
no event loop, no thread, no gRPC.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
import sabotage
from acts import Plan
from model import broken
from turn import make_adapter, prepare, silence, turn

KILLED = -signal.SIGKILL
Point = TypeVar("Point")


@dataclass
class Campaign:
    """One run of a campaign: where it works, how much of it is done, and what it found."""

    directory: Path
    share: float
    """Of the points, chosen by ``seed``."""
    seed: int
    made: Path
    covered: int = 0
    violations: list[str] = field(default_factory=list)
    generator: Random | None = None

    def chosen(self, points: Sequence[Point], share: float | None = None) -> list[Point]:
        """All of them, or an even sample: one of every so many neighbours."""
        share = self.share if share is None else share
        if share >= 1:
            return list(points)
        self.generator, step = self.generator or Random(self.seed), 1 / share
        begins = [int(step * number) for number in range(int(len(points) * share) + 1)]
        chosen = [begin + self.generator.randrange(int(step)) for begin in begins]
        return [points[at] for at in chosen if at < len(points)]

    def fresh(self, name: str) -> Path:
        path = self.directory / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path

    def found(self, where: str, broken: Sequence[str]) -> None:
        self.covered += 1
        self.violations += [f"{where}: {what}" for what in broken]


def forked(act: Callable[[], Coroutine[Any, Any, None]], plan: Plan, said: Path) -> tuple[int, str]:
    """Runs ``act`` in a process of its own, with ``plan`` in the place of `os`; its exit status and last words."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            plan.install()
            anyio.run(act)
            status = 0
        except BaseException:
            said.write_text(traceback.format_exc())
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    words = " | ".join(said.read_text().strip().splitlines()[-5:]) if said.exists() else ""
    said.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), words


def calls_of_a_turn(told: Campaign, plan: Plan) -> list[str]:
    """Names of all calls of a turn that is left alone, which breaks nothing."""
    home, trace = prepare(told.fresh("counted")), told.fresh("counted.trace")

    async def counted() -> None:
        await turn(home, told.made, plan)
        trace.write_text("\n".join(plan.calls))

    status, words = forked(counted, plan, told.fresh("said"))
    assert status == 0, words
    assert broken(home) == [], broken(home)
    return trace.read_text().split("\n")


def run(name: str, campaign: Callable[[Campaign], str]) -> int:
    """The program: `python crash_points.py DIRECTORY [--share 0.1] [--seed 0]`. Exit status 1: a promise is broken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", default="", help="a promise to break, which must then be found broken")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    silence()
    if given.sabotage:
        sabotage.ALL[given.sabotage]()
    made = make_adapter(given.directory / "made")
    told = Campaign(given.directory, given.share, given.seed, made)
    began = time.monotonic()
    what = campaign(told)
    for violation in told.violations[:200]:
        print(violation)
    print(f"{name}: {told.covered} {what}, {len(told.violations)} violations, {time.monotonic() - began:.1f} s")
    return 1 if told.violations else 0


def read_trace(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text().splitlines()] if path.exists() else []


def leave(status: int) -> None:
    sys.stdout.flush()
    sys.exit(status)

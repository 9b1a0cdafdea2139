"""How a loop goes on after a step that failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from daemon import supervisor
from daemon.supervisor import Supervisor
from genome.config import Config
from genome.errors import Conflict, GenomeError, Unavailable
from genome.layout import Home


@dataclass
class Loop:
    """Fails at every step but some."""

    error: GenomeError
    name: str = "planner"
    steps: int = 0
    works: Callable[[int], bool] = lambda _step: False

    async def step(self) -> float | None:
        self.steps += 1
        if not self.works(self.steps):
            raise self.error
        return None


Events = list[tuple[str, dict[str, Any]]]


@asynccontextmanager
async def running(home: Home, loop: Loop, pause: float = 3600.0) -> AsyncIterator[tuple[Supervisor, Events]]:
    """A daemon of which one loop alone runs; what it tells."""
    config = Config.model_validate({"base": "x", "daemon": {"backoff_seconds": pause, "max_backoff_seconds": pause}})
    made = await supervisor.compose(home, config, None, home.root, "f" * 64)  # type: ignore[arg-type]
    told: Events = []
    made.announcer.listeners.append(lambda event: told.append((event.name, event.facts)))
    async with anyio.create_task_group() as group:
        group.start_soon(made._run_loop, loop)
        await anyio.wait_all_tasks_blocked()
        yield made, told
        group.cancel_scope.cancel()


async def test_being_woken_hastens_no_retry(home: Home) -> None:
    """A loop that fails is not tried again by every signal that arrives; its ring is kept for later."""
    loop = Loop(Conflict("no"))
    async with running(home, loop) as (made, told):
        for _ in range(3):
            made.alarms["planner"].ring()
            await anyio.wait_all_tasks_blocked()
        made._worker_is(True)
        await anyio.wait_all_tasks_blocked()
        assert loop.steps == 1 and made.alarms["planner"].event.is_set()
    assert [name for name, _ in told] == ["loop_failed", "worker_serving"] and "waits_for" not in told[0][1]


async def test_whoever_waits_for_the_worker_goes_on_when_it_comes(home: Home) -> None:
    """Its failure says what it waits for, and nothing but the worker wakes it before its time."""
    loop = Loop(Unavailable("the worker does not answer"), works=lambda step: step > 1)
    async with running(home, loop) as (made, told):
        made.alarms["planner"].ring()
        await anyio.wait_all_tasks_blocked()
        assert loop.steps == 1 and made.trouble["planner"].waits_for == "worker"
        made._worker_is(True)
        await anyio.wait_all_tasks_blocked()
        assert made.trouble == {} and loop.steps > 1
    assert [name for name, _ in told] == ["loop_failed", "worker_serving", "recovered"]
    assert told[0][1]["waits_for"] == "worker"


async def test_a_worker_that_serves_and_does_not_answer_is_no_excuse(home: Home) -> None:
    """What fails with a worker that says it serves counts from then on; what failed while it was away does not."""
    loop = Loop(Unavailable("internal"))
    async with running(home, loop) as (made, told):
        made._worker_is(True)
        await anyio.wait_all_tasks_blocked()
        assert loop.steps == 2
    first, second = (facts for name, facts in told if name == "loop_failed")
    assert first["waits_for"] == "worker" and "waits_for" not in second and second["failures"] == 1

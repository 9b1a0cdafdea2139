"""The deployer brings the worker to what the newest promotions say, canaries included."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from whole_home import turn

from daemon.deployer import Deployer
from daemon.events import Announcer
from daemon.worker_client import variants_to_proto
from genome import registry
from genome.errors import InvalidAdapter
from genome.layout import Home
from genome.promotions import Variants
from genome.v1 import inference_pb2 as pb

OLD, NEW = "helper/git-v1.0", "helper/git-v1.1"


@dataclass
class Worker:
    """Stands for the inference worker: what it holds, and its routes."""

    held: dict[str, str] = field(default_factory=dict)
    table: dict[str, pb.Route] = field(default_factory=dict)
    generation: int = 1

    async def adapters(self) -> list[pb.AdapterInfo]:
        named = {entry.adapter_id for route in self.table.values() for each in route.variants
                 for entry in each.stack.entries}  # fmt: skip
        return [
            pb.AdapterInfo(
                id=name, digest=digest, state=pb.AdapterInfo.ROUTED if name in named else pb.AdapterInfo.STANDBY
            )
            for name, digest in self.held.items()
        ]

    async def routes(self) -> pb.ListRoutesResponse:
        return pb.ListRoutesResponse(routes=self.table.values(), generation=self.generation)

    async def load(self, _path: Path, adapter_id: str, digest: str) -> pb.LoadAdapterResponse:
        self.held[adapter_id] = digest
        return pb.LoadAdapterResponse()

    async def unload(self, adapter_id: str) -> None:
        del self.held[adapter_id]

    async def set_routes(
        self, routes: dict[str, Variants], removed: Iterable[str], expected: int
    ) -> pb.SetRouteResponse:
        assert expected == self.generation
        self.table |= {name: pb.Route(name=name, variants=variants_to_proto(each)) for name, each in routes.items()}
        for name in removed:
            del self.table[name]
        self.generation += 1
        return pb.SetRouteResponse(generation=self.generation)

    def shown(self) -> dict[str, list[tuple[str, float]]]:
        return {
            name: [(",".join(entry.adapter_id for entry in each.stack.entries), each.weight) for each in route.variants]
            for name, route in self.table.items()
        }


class Silent(Announcer):
    def tell(self, name: str, **facts: Any) -> None:
        """Nobody listens."""


async def test_a_canary_has_two_variants_until_it_ends(home: Home, signal: Callable[..., Any]) -> None:
    """Both versions are held while some session needs them; once it ended, one variant and one version are left.

    Looking again changes nothing: what the worker says is compared with weights and all.
    """
    worker = Worker()
    deployer = Deployer(home, worker, Silent())  # type: ignore[arg-type]
    turn(home, [signal(number) for number in range(12)], True, time.time())
    await deployer.step()
    assert worker.shown() == {"helper": [(OLD, 1.0)], "helper/git": [(OLD, 1.0)]}
    turn(home, [signal(20 + number) for number in range(12)], False, time.time())
    registry.promote(home, NEW, time.time(), "better", "job-x", share=0.25)
    await deployer.step()
    both = [(NEW, 0.25), (OLD, 0.75)]
    assert worker.shown() == {"helper": both, "helper/git": both} and worker.held.keys() == {OLD, NEW}
    await deployer.step()
    assert worker.generation == 3
    registry.withdraw(home, NEW, time.time(), "worse")
    await deployer.step()
    assert worker.shown() == {"helper": [(OLD, 1.0)], "helper/git": [(OLD, 1.0)]} and worker.held.keys() == {OLD}


async def test_a_terminal_shows_what_was_deployed(home: Home, signal: Callable[..., Any]) -> None:
    """Its renderer takes a fact called ``stack`` for a traceback, and fails where that is a list."""
    turn(home, [signal(number) for number in range(12)], True, time.time())
    shown = io.StringIO()
    log = structlog.wrap_logger(structlog.WriteLogger(shown), processors=[structlog.dev.ConsoleRenderer(colors=False)])
    await Deployer(home, Worker(), Announcer(log)).step()  # type: ignore[arg-type]
    assert "deployed" in shown.getvalue() and f"adapters=['{OLD}']" in shown.getvalue()


async def test_a_broken_adapter_holds_up_no_other_persona(home: Home, signal: Callable[..., Any]) -> None:
    """Personas after it are deployed, what nobody wants is unloaded, and then the failure is raised."""
    turn(home, [signal(number) for number in range(12)], True, time.time())
    shutil.copytree(home.adapters / "helper", home.adapters / "aide")
    for path in (home.adapters / "aide").rglob("*.json"):
        path.write_text(path.read_text().replace("helper", "aide"))
    worker = Worker(held={"helper/git-v0.9": "left over"})

    async def load(_path: Path, adapter_id: str, digest: str) -> pb.LoadAdapterResponse:
        if adapter_id.startswith("aide"):
            raise InvalidAdapter("its weights are damaged")
        worker.held[adapter_id] = digest
        return pb.LoadAdapterResponse()

    worker.load = load  # type: ignore[method-assign]
    with pytest.raises(InvalidAdapter, match="damaged"):
        await Deployer(home, worker, Silent()).step()  # type: ignore[arg-type]
    assert worker.shown() == {"helper": [(OLD, 1.0)], "helper/git": [(OLD, 1.0)]} and worker.held.keys() == {OLD}


async def test_with_nothing_promoted_the_worker_is_not_asked(home: Home) -> None:
    """So a daemon without a worker starts in peace."""
    await Deployer(home, None, Silent()).step()  # type: ignore[arg-type]

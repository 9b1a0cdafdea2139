"""The deployer loop: promotions say what should be served, the worker says what is; it closes the gap.

Load beside first, one assignment for all of a persona's routes second, unload last. It touches the personas that have
promotions and no others, so it can run after any restart of either side.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio.to_thread

from daemon.events import Announcer
from daemon.worker_client import WorkerClient, variants_to_proto
from genome import files, jobs, registry
from genome.adapters import AdapterId
from genome.errors import GenomeError
from genome.layout import Home
from genome.promotions import Promotion, StackEntry, Variants
from genome.v1 import inference_pb2 as pb


@dataclass
class Deployer:
    home: Home
    worker: WorkerClient
    announcer: Announcer
    deployed: dict[str, int] = field(default_factory=dict)
    """By persona: the number of the promotion the worker serves."""

    name = "deployer"

    async def step(self) -> float | None:
        """Brings the worker to the newest promotions. Raises what failed first, once all that can be done is."""
        failed: GenomeError | None = None
        for promotion in await anyio.to_thread.run_sync(registry.newest, self.home):
            try:
                await self._deploy(promotion)
            except GenomeError as error:  # the other personas go on
                failed = failed or error
        try:
            await self._unload_unwanted()
        except GenomeError as error:
            failed = failed or error
        if failed is not None:
            raise failed
        return None

    async def _deploy(self, promotion: Promotion) -> None:
        desired, entries = await anyio.to_thread.run_sync(self._desired, promotion)
        present = await self.worker.routes()
        have = {route.name: route for route in present.routes}
        # A domain that left the stack falls back to its persona's route.
        stale = {name for name in have if name.startswith(f"{promotion.persona}/") and name not in desired}
        loaded = {info.id: info.digest for info in await self.worker.adapters()}
        missing = [entry for entry in entries if loaded.get(entry.adapter) != entry.digest]
        served = all(_serves(have.get(name), variants) for name, variants in desired.items())
        if served and not missing and not stale:
            self.deployed[promotion.persona] = promotion.number
            return
        load_ms = 0.0
        for entry in missing:
            answer = await self.worker.load(self.home.adapter(entry.adapter), entry.adapter, entry.digest)
            load_ms += answer.load_ms
        asked = time.perf_counter()
        answer = await self.worker.set_routes(desired, stale, present.generation)
        swap_ms = (time.perf_counter() - asked) * 1000  # as the caller sees it; the assignment alone takes microseconds
        self.deployed[promotion.persona] = promotion.number
        self.announcer.tell(
            "deployed", persona=promotion.persona, promotion=promotion.number, generation=answer.generation,
            adapters=[entry.adapter for entry in promotion.stack], share=promotion.share, load_ms=load_ms,
            swap_ms=swap_ms,
        )  # fmt: skip

    def _desired(self, promotion: Promotion) -> tuple[dict[str, Variants], list[StackEntry]]:
        """The persona's routes, and every adapter that they name."""
        return registry.routes(self.home, promotion), list(registry.served(self.home, promotion).values())

    async def _unload_unwanted(self) -> None:
        """Adapters of promoted personas that nothing names and no gate is judging."""
        personas, named = await anyio.to_thread.run_sync(self._named)
        if not personas:
            return  # nothing of the worker's is ours: it need not even be there
        for info in await self.worker.adapters():
            owned = AdapterId.parse(info.id).persona in personas
            if owned and info.id not in named and info.state == pb.AdapterInfo.STANDBY:
                await self.worker.unload(info.id)
                self.announcer.tell("unloaded", adapter=info.id)

    def _named(self) -> tuple[set[str], set[str]]:
        """Personas that have promotions; adapters that are served or judged."""
        with files.locked(self.home.lock):
            results = [directory.result() for directory in jobs.active(self.home)]
        newest = registry.newest(self.home)
        named = {adapter for promotion in newest for adapter in registry.served(self.home, promotion)}
        judged = {result.adapter for result in results if result and result.adapter}
        return {promotion.persona for promotion in newest}, named | judged


def _serves(route: pb.Route | None, variants: Variants) -> bool:
    return route is not None and list(route.variants) == variants_to_proto(variants)

"""The searcher loop: on request, bisects a refused batch to the signals that break the gate, a training a probe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from daemon import orders
from daemon.events import Alarm, Announcer
from genome import batches, curriculum, files, jobs, poison
from genome.batches import Batch
from genome.config import Config
from genome.errors import Conflict
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.poison import Part, Poison, Search
from genome.quality import Verdict

MAX_PROBES = 16
"""Trainings that a search takes at most, unless more are allowed."""


@dataclass
class Searcher:
    home: Home
    config: Config
    base_path: Path
    base_fingerprint: str
    announcer: Announcer
    runner: Alarm

    name = "searcher"

    async def step(self) -> float | None:
        """Orders the next probe of every search, or says what was found."""
        for batch, search in await anyio.to_thread.run_sync(lambda: list(searches(self.home))):
            found = await anyio.to_thread.run_sync(self._go_on, batch, search)
            if isinstance(found, Poison):
                self.announcer.tell(
                    "poison_found" if found.signals else "no_poison_found", persona=batch.persona,
                    domain=batch.domain, batch=batch.id, signals=list(found.signals), probes=found.probes,
                )  # fmt: skip
            elif found:
                self.announcer.tell("probe_ordered", batch=batch.id, job=found)
                self.runner.ring()
        return None

    def _go_on(self, batch: Batch, search: Search) -> Poison | str:
        """What was found, or the id of the probe that was ordered; empty while a job of the domain is under way."""
        with files.locked(self.home.lock):  # the gate moves what has ended
            if (batch.persona, batch.domain) in jobs.busy(self.home):
                return ""
            ended = _probes(self.home, batch)
            found = probed(self.home, batch, ended)
            failed = next((each.id for each in ended if _failed(each, search)), "")
        gone = set(search.whole) - {signal.id for signal in curriculum.training_part(self.home, batch)}
        progress = poison.progress(search, found, gone, more=not failed)
        if progress.next is not None:
            number = max((jobs.probe_number(each.id) for each in ended), default=0) + 1
            at = (self.base_path, self.base_fingerprint)
            return orders.probe(self.home, self.config, batch, (progress.next, number), at).id
        named = [each for part in progress.suspects if part != search.whole for each in part if each not in gone]
        made = Poison(
            batch=batch.id, signals=tuple(named), complete=progress.complete, probes=len(found),
            max_probes=search.max_probes, whole=search.whole, failed="" if progress.complete else failed,
            created=int(time.time() * 1000),
        )  # fmt: skip
        made.write(self.home.poison(batch.persona, batch.domain, batch.id))
        files.remove(self.home.search(batch.persona, batch.domain, batch.id))
        return made


def request(home: Home, batch_id: str, max_probes: int, smallest: int) -> Search:
    """Asks for a search of a batch that was refused; a running daemon begins at once.

    One that was not complete goes on where it was.
    """
    with files.locked(home.lock):
        batch = batches.find(home, batch_id)
        names = batch.persona, batch.domain, batch.id
        if not home.search(*names).parent.exists():
            raise Conflict(f"{batch.id} was not set aside", "Only what the gate refused for good is searched")
        if not refused_for(home, batch):
            raise Conflict(
                f"no verdict says what {batch.id} was refused for",
                "Its job is gone, was never judged, or was refused for nothing but too few questions",
            )
        whole = tuple(signal.id for signal in curriculum.training_part(home, batch))
        earlier = home.poison(*names)
        if earlier.exists():
            whole = Poison.read(earlier).whole
        search = Search(
            batch=batch.id, max_probes=max_probes, smallest=smallest, whole=whole, created=int(time.time() * 1000)
        )
        search.write(home.search(*names))
        files.remove(earlier)
    return search


def ask(home: Home, batch_id: str, max_probes: int | None, smallest: int) -> dict[str, Any]:
    """Where the search of a batch stands; it is begun if it was not, and goes on if more probes are allowed it.

    ``max_probes`` None: as many as before, `MAX_PROBES` at first.
    """
    batch = batches.find(home, batch_id)
    under_way = home.search(batch.persona, batch.domain, batch.id).exists()
    place = home.poison(batch.persona, batch.domain, batch.id)
    if place.exists() and not under_way:
        found = Poison.read(place)
        if found.complete or (max_probes or 0) <= found.max_probes:
            return _ended(home, batch, found)
    if not under_way:
        request(home, batch_id, max_probes or MAX_PROBES, smallest)
    with files.locked(home.lock):
        return {"batch": batch_id, "state": "searching", "probes": len(probed(home, batch, _probes(home, batch)))}


def _ended(home: Home, batch: Batch, found: Poison) -> dict[str, Any]:
    searched = (*batches.signals(home, batch), *curriculum.training_part(home, batch))
    named = {signal.id: signal.input for signal in searched if signal.id in found.signals}
    return {**found.model_dump(exclude={"record_schema", "whole"}), "state": "ended", "named": named}


def said(found: dict[str, Any]) -> str:
    """The same in words."""
    if found["state"] == "searching":
        return f"{found['batch']} is searched, {found['probes']} probes so far; ask again for what was found"
    if not found["signals"] and found["complete"]:
        return f"after {found['probes']} probes: no part of {found['batch']} breaks the gate by itself"
    ended = f"{found['failed']} failed" if found["failed"] else "the probes were used up"
    rest = [] if found["complete"] else [
        f"{ended}, so {'some of them may be harmless' if found['signals'] else 'nothing is known yet'}; it goes on "
        f"with: genome training bisect {found['batch']} --max-probes {found['max_probes'] * 2}"
    ]  # fmt: skip
    shown = [f"{signal}  {found['named'].get(signal, '')[:80]}" for signal in found["signals"]]
    if not shown:
        return "\n".join([f"after {found['probes']} probes nothing was found", *rest])
    advice = "Take one out: genome signal retract ID --reason TEXT; then: genome buffer restore " + found["batch"]
    return "\n".join([f"{len(shown)} signals break the gate", *shown, *rest, advice])


def searches(home: Home) -> Iterator[tuple[Batch, Search]]:
    """Those that are under way."""
    for persona, domain in home.domains():
        for batch in batches.set_aside_batches(home, persona, domain):
            if (place := home.search(persona, domain, batch.id)).exists():
                yield batch, Search.read(place)


def refused_for(home: Home, batch: Batch) -> list[str]:
    """Findings that did not pass when the batch was last judged as a whole."""
    judged = [Verdict.read(each.verdict_file) for each in jobs.completed(home) if jobs.of_batch(each.id) == batch.id
              and not jobs.is_probe(each.id) and each.verdict_file.exists()]  # fmt: skip
    return poison.why(max(judged, key=lambda verdict: verdict.created)) if judged else []


def probed(home: Home, batch: Batch, ended: list[JobDirectory]) -> dict[Part, bool]:
    """By the part it trained: whether a probe broke the gate. One that was not judged says nothing."""
    names = refused_for(home, batch)
    judged = (each for each in ended if each.verdict_file.exists())
    return {each.job().part: poison.broke(Verdict.read(each.verdict_file), names) for each in judged}


def _failed(directory: JobDirectory, search: Search) -> bool:
    """Whether a probe of this search could not be trained: it would fail again. One that was withdrawn would not."""
    result = directory.result()
    failed = result is not None and result.adapter is None and not result.withdrawn
    return failed and directory.job().created >= search.created


def _probes(home: Home, batch: Batch) -> list[JobDirectory]:
    return [each for each in jobs.completed(home) if jobs.of_batch(each.id) == batch.id and jobs.is_probe(each.id)]

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
            busy = {(job.persona, job.domain) for job in (each.job() for each in jobs.active(self.home))}
            ended = _probes(self.home, batch)
        if (batch.persona, batch.domain) in busy:
            return ""
        whole = tuple(signal.id for signal in curriculum.training_part(self.home, batch))
        found = poison.progress(whole, probed(self.home, batch, ended), search)
        if found.next is not None:
            job = orders.probe(
                self.home, self.config, batch, (found.next, len(ended) + 1), (self.base_path, self.base_fingerprint)
            )
            return job.id
        named = () if found.suspects == (whole,) else tuple(each for part in found.suspects for each in part)
        made = Poison(
            batch=batch.id, signals=named, complete=found.complete, probes=len(ended), created=int(time.time() * 1000)
        )
        made.write(self.home.poison(batch.persona, batch.domain, batch.id))
        files.remove(self.home.search(batch.persona, batch.domain, batch.id))
        return made


def request(home: Home, batch_id: str, max_probes: int, smallest: int) -> Search:
    """Asks for a search of a batch that was refused; a running daemon begins at once."""
    with files.locked(home.lock):
        batch = batches.find(home, batch_id)
        place = home.search(batch.persona, batch.domain, batch.id)
        if not place.parent.exists():
            raise Conflict(f"{batch.id} was not set aside", "Only what the gate refused for good is searched")
        if not refused_for(home, batch):
            raise Conflict(f"no verdict says what {batch.id} was refused for", "Its job is gone, or was never judged")
        search = Search(batch=batch.id, max_probes=max_probes, smallest=smallest, created=int(time.time() * 1000))
        search.write(place)
    return search


def ask(home: Home, batch_id: str, max_probes: int, smallest: int) -> dict[str, Any]:
    """Where the search of a batch stands; it is begun if it was not."""
    batch = batches.find(home, batch_id)
    under_way = home.search(batch.persona, batch.domain, batch.id).exists()
    place = home.poison(batch.persona, batch.domain, batch.id)
    if place.exists():
        found = Poison.read(place)
        named = {signal.id: signal.input for signal in batches.signals(home, batch) if signal.id in found.signals}
        return {**found.model_dump(exclude={"record_schema"}), "state": "ended", "named": named}
    if not under_way:
        request(home, batch_id, max_probes, smallest)
    with files.locked(home.lock):
        return {"batch": batch_id, "state": "searching", "probes": len(_probes(home, batch))}


def said(found: dict[str, Any]) -> str:
    """The same in words."""
    if found["state"] == "searching":
        return f"{found['batch']} is searched, {found['probes']} probes so far; ask again for what was found"
    if not found["signals"]:
        return f"after {found['probes']} probes: no part of {found['batch']} breaks the gate by itself"
    shown = [f"{signal}  {text[:80]}" for signal, text in found["named"].items()]
    rest = "" if found["complete"] else "; the probes were used up, so some of them may be harmless"
    advice = "Take one out: genome signal retract ID --reason TEXT; then: genome buffer restore " + found["batch"]
    return "\n".join([f"{len(shown)} signals break the gate{rest}", *shown, advice])


def searches(home: Home) -> Iterator[tuple[Batch, Search]]:
    """Those that are under way."""
    for persona, domain in home.domains():
        for batch in batches.set_aside_batches(home, persona, domain):
            if (place := home.search(persona, domain, batch.id)).exists():
                yield batch, Search.read(place)


def refused_for(home: Home, batch: Batch) -> list[str]:
    """Findings that failed when the batch was last judged as a whole."""
    judged = [each for each in jobs.completed(home) if jobs.of_batch(each.id) == batch.id
              and not jobs.is_probe(each.id) and each.verdict_file.exists()]  # fmt: skip
    if not judged:
        return []
    found = Verdict.read(judged[-1].verdict_file).findings
    return [finding.name for finding in found if not finding.passed and not finding.undecided]


def probed(home: Home, batch: Batch, ended: list[JobDirectory]) -> dict[Part, bool]:
    """By the part it trained: whether a probe broke the gate. One that could not be trained did not."""
    names = refused_for(home, batch)
    found = {}
    for directory in ended:
        part = directory.job().part
        judged = directory.verdict_file.exists()
        found[part] = judged and poison.broke(Verdict.read(directory.verdict_file), names)
    return found


def _probes(home: Home, batch: Batch) -> list[JobDirectory]:
    return [each for each in jobs.completed(home) if jobs.of_batch(each.id) == batch.id and jobs.is_probe(each.id)]

"""What a person or a program can ask for: edits of the home under its lock. The loops see them and reconcile.

Every function works with the daemon down; what it changed is carried out when the daemon runs.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from daemon import orders
from genome import adapters, bases, batches, files, jobs, lora, mlx_format, pending, registry
from genome.adapters import AdapterId, Manifest
from genome.batches import Batch
from genome.config import Config
from genome.errors import Conflict, InvalidInput, NotFound
from genome.jobs import JobDirectory
from genome.layout import Home, check_name
from genome.promotions import Promotion
from genome.signals import METRIC, Defaults, from_object


@dataclass(frozen=True)
class Started:
    batch: str
    job: str


@dataclass(frozen=True)
class Import:
    """An adapter from elsewhere."""

    path: Path
    adapter_id: str | None = None
    """None: the next version of ``persona``/``domain``."""
    persona: str = ""
    domain: str = ""
    rank: int | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class Reported:
    """One value of a metric."""

    persona: str
    domain: str
    metric: str
    value: float
    adapter: str = ""
    """Id of the version that answered; empty: not known."""


def flush(home: Home, config: Config, persona: str, domain: str) -> Batch:
    """Seals what is pending into a batch, whatever the triggers say."""
    batch = orders.form(home, config, check_name(persona, "persona"), check_name(domain, "domain"), "by hand")
    if batch is None:
        waiting = pending.count(home, persona, domain).examples
        if waiting:
            raise Conflict(
                f"{persona}/{domain} has {waiting} examples waiting, too few to learn from and to judge by",
                f"{orders.fewest(config)} different questions are needed (gate.min_held_out, gate.held_out_fraction)",
            )
        known = ", ".join("/".join(names) for names in home.domains()) or "none yet"
        raise NotFound(f"{persona}/{domain} has no example waiting", f"Domains with a buffer: {known}")
    return batch


def prepare(home: Home, config: Config, persona: str, domain: str) -> Started:
    """Seals a batch and writes its job, held: look at it, then `start` it."""
    base = bases.resolve(config.base)
    fingerprint = bases.fingerprint(base)
    if config.training.anchor_weight and config.gate.anchors and not home.anchors(fingerprint).exists():
        raise Conflict(
            "no anchors were sampled from this base yet, and the job would miss them",
            "Run the worker and the daemon once, or set gate.anchors = 0",
        )
    batch = flush(home, config, persona, domain)
    job = orders.order(home, config, batch, base, fingerprint, held=True)
    if not jobs.find(home, job.id).held.exists():
        jobs.hold(home, job.id)  # the daemon saw the batch first
    return Started(batch.id, job.id)


def start(home: Home, config: Config, persona: str, domain: str, job: str) -> Started:
    """Lets a held job go on, tries a failed one again, or seals what is pending; the daemon does the rest.

    A failed job whose trainer, settings or base are others by now is replaced: its batch is ordered again, as another
    job.
    """
    if not job:
        batch = flush(home, config, persona, domain)
        return Started(batch.id, jobs.job_id(batch.id))
    with files.locked(home.lock):
        directory = jobs.find(home, job)
        batch_id, result = directory.job().batch, directory.result()
        if result is not None and result.withdrawn:
            raise Conflict(f"{job} was withdrawn: {result.reason}", "Its batch is ordered again by itself")
        if directory.state() == "failed":
            job = _again(home, config, directory)
        else:
            jobs.release(home, job)
    return Started(batch_id, job)


def _again(home: Home, config: Config, directory: JobDirectory) -> str:
    """Of the job that trains what a failed one should have."""
    job = directory.job()
    waits = (home.queued(job.persona, job.domain) / job.batch).exists() and directory.path.parent == home.completed_jobs
    if waits and not job.part:
        base = bases.resolve(config.base)
        if not orders.is_current(config, job, base, bases.fingerprint(base)):
            return jobs.replace(home, directory, "asked for again with other settings")
    jobs.retry(home, directory)
    return job.id


def rebuild(home: Home, persona: str, domain: str) -> Batch:
    """Trains a domain's served version again: without what was retracted, or all anew from the base."""
    return orders.rebuild(home, check_name(persona, "persona"), check_name(domain, "domain"), "rebuilt by hand")


def restore(home: Home, batch_id: str) -> Batch:
    """Lets the signals of a batch that was set aside wait again, to be trained with what comes."""
    with files.locked(home.lock):
        batch = batches.find(home, batch_id)
        if not (home.set_aside(batch.persona, batch.domain) / batch.id).exists():
            raise Conflict(f"{batch.id} was not set aside", "genome buffer status shows what waits")
        if any(jobs.of_batch(directory.id) == batch.id for directory in jobs.active(home)):
            raise Conflict(f"a probe of {batch.id} is under way", "Wait for it: genome training status")
        batches.release(home, batch)
    return batch


def pause(home: Home) -> None:
    files.write(home.paused, b"")


def resume(home: Home) -> None:
    files.remove(home.paused)


def deploy(home: Home, adapter_id: str, by: str, force: bool = False, reason: str = "") -> Promotion:
    """Serves an adapter that lies in the home. ``force``: also one that was withdrawn."""
    with files.locked(home.lock):
        return registry.deploy(home, adapter_id, time.time(), reason or "deployed by hand", by, force)


def roll_back(home: Home, persona: str, by: str, to: str | None = None, reason: str = "") -> Promotion:
    check_name(persona, "persona")
    with files.locked(home.lock):
        return registry.roll_back(home, persona, time.time(), reason or "rolled back by hand", to, by)


def pin(home: Home, persona: str, by: str, on: bool = True, reason: str = "") -> Promotion:
    """While a persona is pinned only a person changes what it is served with."""
    check_name(persona, "persona")
    said = reason or ("pinned by hand" if on else "unpinned by hand")
    with files.locked(home.lock):
        return registry.pin(home, persona, time.time(), said, by, on)


def report_metric(home: Home, reported: Reported) -> Path:
    """Puts one value into the inbox, as a file of its own; returns it."""
    line: dict[str, Any] = {
        "id": uuid.uuid4().hex, "type": METRIC, "persona_id": reported.persona, "domain": reported.domain,
        "input": reported.metric, "value": reported.value, "source": "automated", "timestamp": int(time.time() * 1000),
    }  # fmt: skip
    if reported.adapter:
        line["adapter"] = {"id": str(AdapterId.parse(reported.adapter))}
    path = home.inbox / f"metric-{line['id']}.jsonl"
    signal = from_object(line, Defaults(line["timestamp"]))  # what is no metric is refused here and now
    files.write(path, f"{json.dumps(signal.to_json())}\n".encode())
    return path


def import_adapter(home: Home, config: Config, wanted: Import) -> Manifest:
    """Brings a PEFT directory, an mlx-lm directory or a safetensors file in as an adapter of this home."""
    weights = lora.read(wanted.path, wanted.rank, wanted.alpha)
    base = bases.resolve(config.base)
    with files.locked(home.lock):
        adapter_id = _import_id(home, wanted)
        if home.adapter(adapter_id).exists():
            raise Conflict(f"{adapter_id} exists already", "Adapters never change: give another version")
        described = {
            "id": adapter_id,
            "base_fingerprint": bases.fingerprint(base),
            "origin": str(wanted.path),
            "created": int(time.time() * 1000),
        }
        return adapters.install(home, weights, str(base), described)


def export_adapter(home: Home, adapter_id: str, form: Literal["peft", "mlx"], to: Path) -> Manifest:
    """Writes an adapter into the new directory ``to``: as it lies here, or as mlx-lm reads it."""
    made = adapters.manifest(home, adapter_id)
    if to.exists():
        raise Conflict(f"{to} exists already", "Name a directory that is not there yet")
    path = home.adapter(made.id)
    weights = adapters.weights(home, made)
    try:
        with files.new_directory(to) as aside:
            if form == "mlx":
                mlx_format.write(aside, weights, bases.layers(Path(made.base)))
            else:
                for name in (lora.PEFT_WEIGHTS, lora.CONFIG, adapters.MANIFEST):
                    files.put(aside / name, (path / name).read_bytes())
    except OSError as error:
        raise InvalidInput(f"{to} cannot be written: {error.strerror or error}", "Name another directory") from error
    return made


def _import_id(home: Home, wanted: Import) -> str:
    if wanted.adapter_id:
        return str(AdapterId.parse(wanted.adapter_id))
    if not (wanted.persona and wanted.domain):
        raise InvalidInput(
            "it is not said whose adapter this is",
            "Give its id, such as helper-ai/typescript-v1.0, or --persona and --domain",
        )
    return str(adapters.next_id(home, check_name(wanted.persona, "persona"), check_name(wanted.domain, "domain")))

"""What `genome status` says: read from disk, so it works with everything down; who answers adds what it knows."""

from __future__ import annotations

import json
import time
from typing import Any

import grpc
import grpc.aio

from daemon import exam, explanation, worker_client
from genome import adapters, alerts, batches, curriculum, files, jobs, provenance, registry, rejected, sockets
from genome.config import Config
from genome.errors import GenomeError
from genome.layout import Home
from genome.pending import Tally
from genome.promotions import Promotion
from genome.tombstones import all_of as retractions_of
from genome.v1 import learning_pb2, learning_pb2_grpc

ANSWER_SECONDS = 2.0
"""How long a process may take to say that it is there."""


def read(home: Home, config: Config) -> dict[str, Any]:
    """The state of a home, as plain data. Listed under the lock, since what moves between two looks would be counted
    twice; counted after it, since intake must not wait for that."""
    with files.locked(home.lock):
        active = [jobs.summary(directory) for directory in jobs.active(home)]
        taints = provenance.taints(home)
        open_alerts = alerts.read(home).open
    return {
        "home": str(home.root),
        "base": config.base,
        "training_paused": home.paused.exists(),
        "buffer": read_buffer(home),
        "jobs": active,
        "golden": exam.golden_trouble(home, config),
        "alerts": [alert.model_dump() for alert in open_alerts],
        "personas": [_persona(home, promotion, taints) for promotion in registry.newest(home)],
    }


async def read_live(home: Home, config: Config) -> dict[str, Any]:
    """The same, with what the daemon and the worker say of themselves."""
    found = read(home, config)
    found["daemon"] = await _ask_daemon(home, config)
    found["worker"] = await _ask_worker(home, config)
    return found


async def _ask_daemon(home: Home, config: Config) -> dict[str, Any]:
    listen = sockets.address(config.daemon.listen, home.daemon_socket)
    async with grpc.aio.insecure_channel(listen) as channel:
        stub = learning_pb2_grpc.LearningServiceStub(channel)
        try:
            answer = await stub.GetStatus(learning_pb2.GetStatusRequest(), timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            return {"answers": False, "said": f"does not answer at {listen} ({error.code().name.lower()})"}
    live = json.loads(answer.json)["daemon"]
    return {"answers": True, "said": f"runs, for {time.time() - live['started']:.0f} s", **live}


async def _ask_worker(home: Home, config: Config) -> dict[str, Any]:
    async with worker_client.connect(config, home) as worker:
        try:
            info = await worker.info(ANSWER_SECONDS)
            loaded = [adapter.id for adapter in await worker.adapters()]
        except GenomeError as error:
            return {"answers": False, "said": str(error)}
    copy = info.served_fingerprint not in ("", info.base_fingerprint)
    base = f"{info.base} as {info.served_base}" if copy else info.base
    said = f"serves {base} ({info.engine}, {info.dtype} on {info.device}), adapters: {', '.join(loaded) or 'none'}"
    return {"answers": True, "said": said, "adapters": loaded, "generation": info.generation, "notes": info.notes}


def waiting(home: Home, config: Config) -> dict[str, str]:
    """By persona/domain: what its triggers say now."""
    return {"/".join(place): explanation.said(*explanation.plan(home, config, place, time.time()), config)
            for place in home.domains()}  # fmt: skip


def read_buffer(home: Home) -> dict[str, Any]:
    """What was taken, what waits, what was refused."""
    return {
        "domains": [_domain(home, persona, domain) for persona, domain in home.domains()],
        "rejected_lines": sum(1 for _ in rejected.read(home)),
        "inbox": str(home.inbox),
    }


def _domain(home: Home, persona: str, domain: str) -> dict[str, Any]:
    with files.locked(home.lock):
        names = batches.pending_segments(home, persona, domain)
        ended = batches.archived(home, persona, domain)
        waiting_batches = batches.queued(home, persona, domain)
        set_aside = batches.set_aside_batches(home, persona, domain)
        refused = [_why(home, batch) for batch in set_aside]
        beaten = curriculum.superseded(home, persona, domain)
        retractions = retractions_of(home, persona, domain)
    waits = Tally().counts(home, persona, domain, names)
    beaten_later = len(beaten) - sum(len(batch.superseded) for batch in (*ended, *waiting_batches, *set_aside))
    gone = {retraction.signal for retraction in retractions}

    def signals(found: list[batches.Batch]) -> int:
        """In one state each: what was superseded or retracted is counted as that."""
        ids = {batch.id for batch in found}
        retracted = sum(made.batch in ids and made.signal not in beaten for made in retractions)
        return sum(batch.signals + batch.evidence for batch in found) - retracted

    return {
        "persona": persona,
        "domain": domain,
        "pending": waits.examples,
        "evidence": waits.evidence,
        "queued": signals(waiting_batches),
        "archived": signals(ended) - beaten_later,
        "set_aside": signals(set_aside),
        "superseded": len(beaten - gone),
        "retracted": len(gone),
        "batches": [
            *({"batch": batch.id, "state": "queued", "reason": batch.reason} for batch in waiting_batches),
            *({"batch": batch.id, "state": "set aside", "reason": why}
              for batch, why in zip(set_aside, refused, strict=True)),
        ],
    }  # fmt: skip


def _why(home: Home, batch: batches.Batch) -> str:
    """What a batch was set aside for; empty where nobody can say."""
    place = home.set_aside(batch.persona, batch.domain) / batch.id / "reason.txt"
    return place.read_text(errors="replace").strip() if place.exists() else ""


def _persona(home: Home, promotion: Promotion, taints: provenance.Taints) -> dict[str, Any]:
    return {
        "persona": promotion.persona,
        "promotion": promotion.number,
        "stack": [entry.adapter for entry in promotion.stack],
        "share": promotion.share,
        "pinned": promotion.pinned,
        "reason": promotion.reason,
        "tainted": {entry.adapter: found for entry in promotion.stack if (found := taints.get(entry.adapter))},
        "adapters": [str(known) for known in adapters.list_ids(home, promotion.persona)],
    }

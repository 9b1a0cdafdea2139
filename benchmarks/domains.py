"""Two domains of one persona, learned one after the other: what the gate says, and what is kept of the first.

    python -m benchmarks.domains --base BASE --first git.jsonl --second gh.jsonl --old old.jsonl --json

A real turn of the loop for each: worker and daemon in processes of their own, corrections dropped, trained, judged in
the persona's whole stack, tried again as the ladder says. Then the stacks that were promoted answer questions nobody
was trained on.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from benchmarks.measure import Report
from daemon import evaluation, worker_client
from daemon.demo import processes
from genome import batches, config, files, jobs, registry
from genome.layout import Home
from genome.promotions import Stack
from genome.quality import Verdict
from genome.signals import Defaults, Signal, from_object

PERSONA = "learner"
TRAINED = 500
"""Lines of the first domain that are dropped; the others are asked in the end."""
LOOK_SECONDS = 1.0
ENDED_SECONDS = 3000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="directory of a base model with a chat template")
    parser.add_argument("--first", type=Path, required=True, help="JSONL of corrections, over 500")
    parser.add_argument("--second", type=Path, required=True, help="JSONL of corrections")
    parser.add_argument("--old", type=Path, required=True, help="JSONL of what the base knows")
    parser.add_argument("--json", action="store_true", help="one object on the last line; the table goes to stderr")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genome-domains-") as directory:
        report = anyio.run(measured, Home(Path(directory) / "home"), given)
    report.show(given.json)


async def measured(home: Home, given: argparse.Namespace) -> Report:
    report = Report("two domains of one persona")
    first, second, old = read(given.first, "first"), read(given.second, "second"), read(given.old, "old")
    config.init(home, str(given.base))
    with home.config.open("a") as settings:
        settings.write(f"\n[triggers.threshold]\nmin_examples = {min(TRAINED, len(second)) // 2}\n")
    async with processes.running(home) as alive:
        for name, signals in (("first", first[:TRAINED]), ("second", second)):
            await alive(taught(home, name, signals))
        async with worker_client.connect(config.load(home), home) as worker:
            stacks: list[Stack] = [(), *(each.stack for each in registry.history(home, PERSONA))]
            rows = []
            for stack in stacks:
                for entry in stack:
                    await worker.load(home.adapter(entry.adapter), entry.adapter, entry.digest)
                accuracy = [(await evaluation.measure(worker, asked, stack)).token_accuracy
                            for asked in (first[TRAINED:], old)]  # fmt: skip
                rows.append(accuracy)
    for number, verdict in enumerate(verdicts(home), 1):
        for each in verdict.findings:
            said = "passed" if each.passed else "undecided" if each.undecided else "failed"
            name = f"try {number}, {verdict.candidate}: {each.name}"
            report.rows.append((name, f"{each.value:.3f}", f"{each.low:.3f}", said, f"{each.required:g}"))
    if len(rows) == 3:
        kept, skill = rows[2][0] / rows[1][0], rows[2][1] / rows[0][1]
        report.ratio("first_domain_kept", "held out", f"{rows[2][0]:.4f}", f"{rows[1][0]:.4f}", kept, "≥ 0.95")
        report.ratio("old_skill_kept", "held out", f"{rows[2][1]:.4f}", f"{rows[0][1]:.4f}", skill, "")
    recalls = [each.value for verdict in verdicts(home) for each in verdict.findings
               if each.name == "retention/recall/first"]  # fmt: skip
    report.keys["first_domain_kept_by_try"] = [round(value, 4) for value in recalls]
    report.keys |= {"tries": len(verdicts(home)), "promotions": len(rows) - 1}
    return report


async def taught(home: Home, domain: str, signals: list[Signal]) -> None:
    """Drops corrections, has them trained, and returns when a verdict on them was carried out for good."""
    aside = home.root / f"{domain}.jsonl"
    aside.write_text("".join(json.dumps(signal.to_json() | {"domain": domain}) + "\n" for signal in signals))
    aside.rename(home.inbox / aside.name)
    started = time.monotonic()
    while time.monotonic() - started < ENDED_SECONDS:
        await anyio.sleep(LOOK_SECONDS)
        ended = (home.archive(PERSONA, domain), home.set_aside(PERSONA, domain))
        if any(path for place in ended for path in place.glob("batch-*/batch.json")):
            return
        waits = not batches.queued(home, PERSONA, domain) and not jobs.active(home)
        if waits and any(f"/{domain}-v" in verdict.candidate for verdict in verdicts(home)):
            return  # judged, without enough evidence
    raise TimeoutError(f"{domain} was not judged in {ENDED_SECONDS:g} s; its logs lie in {home.root / 'logs'}")


def verdicts(home: Home) -> list[Verdict]:
    """In the order in which they were spoken."""
    with files.locked(home.lock):
        found = [Verdict.read(each.verdict_file) for each in jobs.completed(home) if each.verdict_file.exists()]
    return sorted(found, key=lambda verdict: verdict.created)


def read(path: Path, domain: str) -> list[Signal]:
    """A file of corrections, in another order than it has."""

    def parsed() -> Iterator[Signal]:
        for line in path.read_text().splitlines():
            value: dict[str, Any] = json.loads(line) | {"personaId": PERSONA, "domain": domain}
            yield from_object(value, Defaults(0))

    found = list(parsed())
    random.Random(1).shuffle(found)
    return found


if __name__ == "__main__":
    main()

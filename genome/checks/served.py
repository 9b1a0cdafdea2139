"""Adapters and promotions: each adapter is what its manifest says, and what is served or gone back to exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from genome import adapters, lora, promotions, scores
from genome.adapters import Manifest
from genome.checks.problems import BACKUP, Problem, View, parsed
from genome.errors import InvalidAdapter
from genome.files import UNFINISHED
from genome.layout import NAME, RESERVED
from genome.promotions import Promotion
from genome.scores import Scores

RECORD = re.compile(r"\d{6,}\.json")
Manifests = dict[str, Manifest]


def check(view: View, notes: list[str]) -> Iterator[Problem]:
    """``notes``: what a person should know though nothing is wrong."""
    found: Manifests = {}
    for owner in _directories(view.home.adapters):
        for path in _directories(owner):
            if path.name == scores.DIRECTORY:
                yield from _scores(path)
            elif path.name != "promotions":
                yield from _adapter(view, owner.name, path, found)
    for owner in _directories(view.home.adapters):
        if NAME.fullmatch(owner.name) and owner.name not in RESERVED:
            yield from _promotions(view, owner.name, found, notes)


def _scores(path: Path) -> Iterator[Problem]:
    for each in sorted(path.glob("*.json")):
        read = parsed(Scores, each)
        if isinstance(read, Problem):
            yield read


def _adapter(view: View, owner: str, path: Path, found: Manifests) -> Iterator[Problem]:
    if not adapters.ID.fullmatch(f"{owner}/{path.name}"):
        yield Problem(path, "is no adapter's name", "Move it away, or to <domain>-v<major>.<minor>")
        return
    if not (path / "manifest.json").exists():
        yield Problem(path, "is an adapter without manifest.json", f"It cannot be served. {BACKUP}")
        return
    manifest = parsed(Manifest, path / "manifest.json")
    if isinstance(manifest, Problem):
        yield manifest
        return
    found[f"{owner}/{path.name}"] = manifest
    if manifest.id != f"{owner}/{path.name}":
        yield Problem(path / "manifest.json", f"is the manifest of {manifest.id}", BACKUP)
    weights = path / lora.PEFT_WEIGHTS
    for name in (lora.PEFT_WEIGHTS, lora.CONFIG):
        if not (path / name).exists():
            yield Problem(path / name, "is missing", f"The adapter cannot be served. {BACKUP}")
    if not view.quick and weights.exists():
        try:
            whole = lora.digests(weights).sha256 == manifest.digest
        except (InvalidAdapter, OSError):
            whole = False
        if not whole:
            yield Problem(weights, "is not what was installed: its sha256 is another", BACKUP)


def _promotions(view: View, persona: str, found: Manifests, notes: list[str]) -> Iterator[Problem]:
    directory, records = view.home.promotions(persona), []
    paths = sorted(path for path in directory.iterdir() if RECORD.fullmatch(path.name)) if directory.is_dir() else []
    for expected, path in enumerate(paths, 1):
        if int(path.stem) != expected:
            yield Problem(directory, f"has no {expected:06d}.json before {path.name}", BACKUP)
            break
    for path in paths:
        promotion = parsed(Promotion, path)
        if isinstance(promotion, Problem):
            yield promotion
        elif (promotion.number, promotion.persona) != (int(path.stem), persona):
            yield Problem(path, f"is promotion {promotion.number} of {promotion.persona}", BACKUP)
        else:
            records.append((path, promotion))
            if promotion.builds_on and not (directory / f"{promotion.builds_on:06d}.json").exists():
                yield Problem(path, f"builds on {promotion.builds_on:06d}.json, which is not there", BACKUP)
    yield from _reachable(persona, records, found, notes)


def _reachable(
    persona: str, records: list[tuple[Path, Promotion]], found: Manifests, notes: list[str]
) -> Iterator[Problem]:
    """What is to be served is there, and so is what a rollback serves; older versions may have been pruned."""
    if not records:
        return
    history = [promotion for _, promotion in records]
    newest, returned_to, others = history[-1], promotions.way_back(history), promotions.settled(history)
    acts = [promotion.kind for promotion in history if promotion.kind not in ("pin", "unpin")]
    for path, promotion in records:
        for what in _dangling(promotion, found):
            if promotion in (newest, others):
                advice = f"Go back: genome adapter rollback --persona {persona}"
                yield Problem(path, f"is to be served, and {what}", advice)
            # After a rollback the next one may lead to what was pruned long ago; rolling back refuses then.
            elif promotion == returned_to and acts[-1] != "rollback":
                advice = (
                    "A rollback cannot return to it. Bring the adapter back from a copy of the home, or deploy another"
                )
                yield Problem(path, f"is what a rollback returns to, and {what}", advice)
            else:
                notes.append(f"promotion {promotion.number} of {persona} cannot be returned to: {what}")


def _dangling(promotion: Promotion, found: Manifests) -> list[str]:
    said = []
    for entry in promotion.stack:
        manifest = found.get(entry.adapter)
        if manifest is None:
            said.append(f"{entry.adapter} is not there")
        elif manifest.digest != entry.digest:
            said.append(f"{entry.adapter} is another one than was promoted")
    return said


def _directories(parent: Path) -> list[Path]:
    found = sorted(parent.iterdir()) if parent.is_dir() else []
    return [path for path in found if path.is_dir() and not path.name.startswith(UNFINISHED)]

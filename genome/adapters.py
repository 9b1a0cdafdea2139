"""Adapters on disk: one immutable directory a version, in PEFT's format, with a manifest of where it came from.

adapters/<persona>/<domain>-v1.3/   adapter_model.safetensors, adapter_config.json, manifest.json
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from genome import files, lora
from genome.bases import Described, Quantisation
from genome.errors import InvalidAdapter, InvalidInput, NotFound
from genome.layout import NAME, Home, check_name
from genome.records import Record

ID = re.compile(r"(?P<persona>[^/]+)/(?P<domain>[^/]+)-v(?P<major>\d+)\.(?P<minor>\d+)")
MANIFEST = "manifest.json"


@dataclass(frozen=True, order=True)
class AdapterId:
    """``<persona>/<domain>-v<major>.<minor>``; the persona is ``shared`` for adapters any persona may stack."""

    persona: str
    domain: str
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.persona}/{self.domain}-v{self.version}"

    @property
    def version(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> AdapterId:
        match = ID.fullmatch(text)
        if match is None:
            raise InvalidInput(f"{text!r} is no adapter id", "It looks like helper-ai/typescript-v1.3")
        if match["persona"] != "shared":
            check_name(match["persona"], "persona")
        return cls(match["persona"], check_name(match["domain"], "domain"), int(match["major"]), int(match["minor"]))


class Manifest(Record):
    """manifest.json: what an adapter is and where it came from."""

    id: str
    digest: str
    """sha256 of adapter_model.safetensors, hex."""
    xxh3: str = ""
    """128-bit xxh3 of the same, hex: what is compared on loading, where there is one."""
    base: str
    base_fingerprint: str
    """Of the base it is made for, also where it was trained on a quantised copy."""
    trained_on: Described | None = None
    """The directory whose weights it was trained beside: the base, or a copy of it. None: not known."""
    parent: str | None = None
    batch: str | None = None
    job: str | None = None
    trainer: str | None = None
    origin: str | None = None
    """What was imported, where nothing was trained here."""
    signals: tuple[str, ...] = ()
    """Ids of the signals it was trained on, replayed ones included; those of its parents are in their manifests."""
    settings: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    """Of the training: last loss, seconds, examples."""
    created: int
    """Milliseconds since 1970."""


def manifest(home: Home, adapter_id: str) -> Manifest:
    path = home.adapter(str(AdapterId.parse(adapter_id))) / MANIFEST
    if not path.exists():
        known = ", ".join(str(known) for known in list_ids(home)) or "none yet"
        raise NotFound(f"there is no adapter {adapter_id!r}", f"Adapters: {known}")
    return Manifest.read(path)


def list_ids(home: Home, persona: str | None = None) -> list[AdapterId]:
    """Every complete adapter, by persona, domain and version."""
    found = []
    for owner in sorted(home.adapters.iterdir()) if home.adapters.is_dir() else []:
        if persona not in (None, owner.name) or not NAME.fullmatch(owner.name):
            continue
        for path in owner.iterdir():
            if path.name.startswith(files.UNFINISHED):
                continue  # being installed this moment, or left by an install that failed
            match = ID.fullmatch(f"{owner.name}/{path.name}")
            if match and (path / MANIFEST).exists():
                found.append(AdapterId.parse(match[0]))
    return sorted(found)


def next_id(home: Home, persona: str, domain: str) -> AdapterId:
    """One minor version after the newest, whether that ever served or not. The first is 1.0."""
    versions = [known for known in list_ids(home, persona) if known.domain == domain]
    if not versions:
        return AdapterId(persona, domain, 1, 0)
    return AdapterId(persona, domain, versions[-1].major, versions[-1].minor + 1)


def of_job(home: Home, persona: str, job: str) -> Manifest | None:
    """The candidate a job made, if it is there already."""
    for known in list_ids(home, persona):
        found = manifest(home, str(known))
        if found.job == job:
            return found
    return None


def install(home: Home, weights: lora.Lora, base: str, described: Mapping[str, Any]) -> Manifest:
    """Puts checked weights in place as the adapter ``described["id"]``; the rename is what makes it exist.

    ``described`` are the manifest's fields but base and digest.
    """
    with files.new_directory(home.adapter(described["id"])) as aside:
        lora.write_peft(aside, weights, base)
        digests = lora.digests(aside / lora.PEFT_WEIGHTS)
        made = Manifest(digest=digests.sha256, xxh3=digests.xxh3, base=base, **described)
        files.put(aside / MANIFEST, made.to_bytes())
    return made


def origin(manifest: Mapping[str, Any]) -> str:
    """Which base a manifest says the adapter was made for, and what it was trained on, in words."""
    base, fingerprint = manifest.get("base") or "not named", str(manifest.get("base_fingerprint", ""))
    trained_on = manifest.get("trained_on") or {}
    method = Quantisation.model_validate(trained_on["quantisation"]) if trained_on else ""
    copy = trained_on and trained_on["fingerprint"] != fingerprint
    where = f", trained on {trained_on['path']}, {method}" if copy else f", {method}" if method else ""
    return f"{base} (fingerprint {fingerprint[:12]}…{where})"


def made_for(home: Home, adapter_id: str, base_fingerprint: str) -> Manifest:
    """The manifest, after checking that the adapter was made for this base."""
    made = manifest(home, adapter_id)
    if made.base_fingerprint != base_fingerprint:
        raise InvalidAdapter(
            f"{adapter_id} was made for another base: {origin(made.model_dump())}; here it is {base_fingerprint[:12]}…",
            "Name that base in genome.toml again; or go back to the bare one, genome adapter rollback, and train on it",
        )
    return made


def verify(home: Home, adapter_id: str, base_fingerprint: str) -> Manifest:
    """The manifest, after checking that the weights are whole, finite, as digested, and made for this base."""
    made = made_for(home, adapter_id, base_fingerprint)
    weights(home, made)
    return made


def weights(home: Home, made: Manifest) -> lora.Lora:
    """An adapter's weights, after checking that they are whole, finite and as digested."""
    path: Path = home.adapter(made.id)
    found = lora.read(path)
    if found.digest != made.digest:
        raise InvalidAdapter(
            f"{path} has changed since it was made: digest {found.digest[:12]}…, not {made.digest[:12]}…"
        )
    return found

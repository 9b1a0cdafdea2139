"""Every path of a genome home, named once. docs/directory.md describes what lies where."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from genome.errors import InvalidInput

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
RESERVED = frozenset({"inbox", "ledger", "rejected", "shared"})
"""Directory names in a home that stand where a persona's would."""

SOCKET_PATH_LIMIT = 100
"""Bytes. Unix sockets take 104 on macOS and 108 on Linux, with the closing zero."""


def check_name(name: str, what: str) -> str:
    """Returns ``name`` if it can name a persona or a domain, else raises InvalidInput."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{what} {name[:80]!r} is not a name",
            "Use 1 to 64 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit",
        )
    if what == "persona" and name in RESERVED:
        raise InvalidInput(f"persona {name!r} is a reserved name", f"Reserved are {', '.join(sorted(RESERVED))}")
    return name


def default_home() -> Path:
    """$GENOME_HOME, systemd's $STATE_DIRECTORY, or the platform's place for a user's data."""
    for variable in ("GENOME_HOME", "STATE_DIRECTORY"):
        if value := os.environ.get(variable):
            return Path(value).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/genome"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "genome"


@dataclass(frozen=True)
class Home:
    """The directory all state lies in."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "genome.toml"

    @property
    def lock(self) -> Path:
        """Held for the length of one act on the records."""
        return self.root / "run" / "genome.lock"

    @property
    def daemon_lock(self) -> Path:
        """Held for a supervisor's whole life: there is one a home."""
        return self.root / "run" / "daemon.lock"

    @property
    def paused(self) -> Path:
        """While it exists, no training starts."""
        return self.root / "training-jobs" / "paused"

    @property
    def worker_socket(self) -> Path:
        return self._socket("worker")

    @property
    def daemon_socket(self) -> Path:
        return self._socket("daemon")

    def _socket(self, name: str) -> Path:
        path = self.root.absolute() / "run" / f"{name}.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        # A deep home: the socket moves to a short private directory that both sides derive from the home's path.
        digest = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:12]
        runtime = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return Path(runtime) / f"genome-{os.getuid()}-{digest}" / f"{name}.sock"

    # The buffer

    @property
    def buffer(self) -> Path:
        return self.root / "training-buffer"

    @property
    def inbox(self) -> Path:
        return self.buffer / "inbox"

    @property
    def rejected(self) -> Path:
        return self.buffer / "rejected"

    @property
    def retried(self) -> Path:
        """Which refused lines were given to the inbox again."""
        return self.rejected / "retried.jsonl"

    @property
    def ledger(self) -> Path:
        """Which ids were accepted, and how far files were read; made from the segments."""
        return self.buffer / "ledger"

    def pending(self, persona: str, domain: str) -> Path:
        return self.buffer / persona / domain / "pending"

    def queued(self, persona: str, domain: str) -> Path:
        return self.buffer / persona / domain / "queued"

    def archive(self, persona: str, domain: str) -> Path:
        return self.buffer / persona / domain / "archive"

    def set_aside(self, persona: str, domain: str) -> Path:
        """Batches the gate refused for good."""
        return self.buffer / persona / domain / "set-aside"

    def retracting(self, persona: str, domain: str) -> Path:
        """Retractions that were asked for and are not carried out yet."""
        return self.buffer / persona / domain / "retracting"

    def retracted(self, persona: str, domain: str) -> Path:
        """Retractions that were carried out: which signals, when and why."""
        return self.buffer / persona / domain / "retracted"

    def search(self, persona: str, domain: str, batch: str) -> Path:
        """While it lies in a refused batch, what breaks the gate is searched for."""
        return self.set_aside(persona, domain) / batch / "search.json"

    def poison(self, persona: str, domain: str, batch: str) -> Path:
        """What a search found."""
        return self.set_aside(persona, domain) / batch / "poison.json"

    def triggers(self, persona: str, domain: str) -> Path:
        """What the triggers of a domain remember."""
        return self.buffer / persona / domain / "triggers.json"

    def domains(self) -> list[tuple[str, str]]:
        """(persona, domain) of every buffer there is."""
        return [
            (persona.name, domain.name)
            for persona in _directories(self.buffer)
            if persona.name not in RESERVED
            for domain in _directories(persona)
        ]

    # Jobs

    @property
    def jobs(self) -> Path:
        return self.root / "training-jobs"

    @property
    def active_jobs(self) -> Path:
        return self.root / "training-jobs" / "active"

    @property
    def completed_jobs(self) -> Path:
        return self.root / "training-jobs" / "completed"

    def checkpoints(self, job: str) -> Path:
        return self.root / "checkpoints" / job

    def anchors(self, base_fingerprint: str) -> Path:
        """Prompts and answers sampled from that base before anything was trained on it."""
        return self.root / "anchors" / f"{base_fingerprint[:16]}.jsonl"

    def rehearsal(self, persona: str, stack: str) -> Path:
        """What a stack that serves the persona answers to prompts of the base (`genome.rehearsals`)."""
        return self.root / "rehearsals" / persona / f"{stack}.jsonl"

    # Adapters

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    def adapter(self, adapter_id: str) -> Path:
        """``<persona>/<domain>-v1.3`` or ``shared/<name>-v1.0``."""
        return self.adapters / adapter_id

    def lineage(self, adapter_id: str) -> Path:
        """The manifest of an adapter that was pruned: its descendants live on."""
        return self.root / "lineage" / f"{adapter_id}.json"

    def promotions(self, persona: str) -> Path:
        return self.adapters / persona / "promotions"

    def golden(self, persona: str) -> Path:
        """Questions the user wrote, which every candidate must still answer."""
        return self.root / "personas" / persona / "golden"

    # Alerts

    @property
    def alerts(self) -> Path:
        return self.root / "alerts"

    @property
    def open_alerts(self) -> Path:
        """Which conditions are open, and which messages are owed to whom."""
        return self.root / "alerts" / "open.json"


def _directories(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and NAME.fullmatch(path.name))

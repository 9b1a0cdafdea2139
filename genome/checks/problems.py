"""What a check reports: where, what is wrong, what to do, and how it is repaired if that is safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from genome import files
from genome.layout import Home
from genome.records import Record

ASK = "genome fsck --repair mends it"
BACKUP = "Bring it back from a copy of the home, if there is one"

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    path: Path
    what: str
    advice: str
    repair: Callable[[], object] | None = None
    """None: it takes a person to judge."""

    @property
    def repairable(self) -> bool:
        return self.repair is not None


@dataclass(frozen=True)
class View:
    """What is looked at, and how."""

    home: Home
    quick: bool = False
    """Without digests of weights, and lines are read by their structs alone."""
    live: bool = False
    """A daemon holds the home: what it is about to finish or to remove is no problem."""


def rubbish(path: Path, what: str) -> Problem:
    """Something that nothing needs, so that it can be removed."""
    return Problem(path, what, ASK, partial(files.remove, path))


def torn(path: Path) -> Problem:
    return Problem(path, "its last line is torn, and was never acknowledged", ASK, partial(files.cut_torn_line, path))


def parsed(kind: type[R], path: Path) -> R | Problem:
    """A record, without moving it aside where it cannot be read."""
    try:
        return kind.from_bytes(path.read_bytes())
    except OSError as error:
        return Problem(path, f"cannot be read: {error.strerror}", BACKUP)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    except ValueError as error:
        why = str(error)
    return Problem(path, f"cannot be read as {kind.__name__.lower()}: {why}", BACKUP)

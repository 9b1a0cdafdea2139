"""Dropped files that still hold a signal: what lies in the drop zone is its owner's, and is only named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from genome import intake, tombstones
from genome.errors import InvalidInput
from genome.intake import NOTHING, Drop, Reading, Scan
from genome.layout import Home
from genome.lines import Reader
from genome.signals import Defaults

CONTENT_ID = re.compile(r"[0-9a-f]{32}")
"""An id that may be the hash of what a line says: then the line itself does not hold it."""
LONGEST_LINE = 64 << 20
"""Bytes of a line that is looked at: far above what intake takes."""


def holding(home: Home, place: tuple[str, str], signal_id: str, now: float) -> Iterator[Path]:
    """Files of the drop zone with a line of that signal. ``place``: its persona and domain.

    Every line is read: which file a signal came from does not say where it lies, since names and inodes are used again.
    """
    reader = Reader()
    for drop in intake.drops(home, Scan(now, 0)):
        if any(_is_of(raw, drop, reader, (*place, signal_id)) for raw in _lines(drop)):
            yield drop.path


def _lines(drop: Drop) -> Iterator[bytes]:
    for chunk in Reading(drop, NOTHING, True, LONGEST_LINE).chunks():
        yield from chunk.data.splitlines()


def _is_of(raw: bytes, drop: Drop, reader: Reader, wanted: tuple[str, str, str]) -> bool:
    persona, domain, signal_id = wanted
    if not CONTENT_ID.fullmatch(signal_id) and tombstones.needle(signal_id)[1:] not in raw and b"\\" not in raw:
        return False
    try:
        line = reader.line(raw, Defaults(0, drop.persona or persona, drop.domain or domain))
    except InvalidInput:
        return False
    return (line.persona_id, line.domain, line.id) == wanted

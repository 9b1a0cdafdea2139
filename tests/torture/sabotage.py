"""Promises broken on purpose, in a campaign's process alone, so that its test sees that the breach is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from daemon.ingest import Ingest
from genome import files, intake


def lines_unsynced() -> None:
    files.sync = lambda _descriptor: None


def names_unsynced() -> None:
    files.sync_directory = lambda _directory: None


def found_unsynced() -> None:
    files.sync_found = lambda _root, _passed_over: None


def in_place() -> None:
    """Directories are filled under their final names."""

    @contextmanager
    def wrong(final: Path) -> Iterator[Path]:
        files.make_directory(final)
        yield final
        files.sync_tree(final)

    files.new_directory = wrong


def errors_ignored() -> None:
    """A failed sync is taken for one that succeeded."""
    sync, sync_directory = files.sync, files.sync_directory

    def deaf(act: Callable[[Any], None]) -> Callable[[Any], None]:
        def acted(what: Any) -> None:
            with suppress(OSError):
                act(what)

        return acted

    files.sync, files.sync_directory = deaf(sync), deaf(sync_directory)


def source_first() -> None:
    """The dropped file is removed before its lines are stored."""
    begin = Ingest._begin

    def wrong(self: Ingest, drop: intake.Drop) -> intake.Reading:
        aside = Path(f"{drop.path}.aside")
        aside.hardlink_to(drop.path)
        files.remove(drop.path)
        aside.rename(drop.path)
        return begin(self, drop)

    Ingest._begin = wrong  # type: ignore[method-assign]


ALL: dict[str, Callable[[], None]] = {
    "lines-unsynced": lines_unsynced,
    "names-unsynced": names_unsynced,
    "found-unsynced": found_unsynced,
    "in-place": in_place,
    "errors-ignored": errors_ignored,
    "source-first": source_first,
}

"""Promise 3: existing means complete."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from failing_os import failing

from genome import adapters, files, jobs
from genome.errors import Busy, Damaged
from genome.layout import Home
from genome.records import Record


class Note(Record):
    text: str


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """An error while it is filled leaves nothing under its name."""
    with pytest.raises(RuntimeError), files.new_directory(tmp_path / "made") as aside:
        (aside / "half").write_text("x")
        assert not (tmp_path / "made").exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.new_directory(tmp_path / "made") as aside:
        (aside / "whole").write_text("x")
    assert (tmp_path / "made" / "whole").read_text() == "x"


def test_a_number_is_taken_by_one_writer_only(tmp_path: Path) -> None:
    """create never replaces."""
    assert files.create(tmp_path / "000001.json", b"first")
    assert not files.create(tmp_path / "000001.json", b"second")
    assert (tmp_path / "000001.json").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["000001.json"]


def test_a_number_that_is_taken_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the name it was written under could not be removed, and is the same file still."""
    path, unlink = tmp_path / "000001.json", os.unlink

    def fails_once_it_is_linked(name: Path) -> None:
        if path.exists():
            raise OSError(5, "Input/output error")
        unlink(name)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
        patched.setattr(files.os, "unlink", fails_once_it_is_linked)
        files.create(path, b"first")
    assert not files.create(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_failed_sync_is_never_taken_for_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append whose fsync fails raises, and leaves the file as it was."""
    path = tmp_path / "segment.jsonl"
    files.append(path, b"one\n")

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.append(path, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_a_lock_says_who_holds_it(tmp_path: Path) -> None:
    """A second daemon on one home is refused, and told by whom."""
    lock = tmp_path / "lock"
    with (
        files.locked(lock, "the daemon with process id 7"),
        pytest.raises(Busy, match="process id 7"),
        files.locked(lock, "another", wait=False),
    ):
        pass


def test_a_record_that_cannot_be_read_is_moved_aside(tmp_path: Path) -> None:
    """It is never overwritten; the reason lies beside it."""
    path = tmp_path / "note.json"
    for content in (b"{", b'{"schema": 99, "text": "x"}', b'{"schema": 1, "text": "x", "more": 1}'):
        path.write_bytes(content)
        with pytest.raises(Damaged, match=r"note\.json cannot be read"):
            Note.read(path)
        assert not path.exists()
    kept = [entry for entry in tmp_path.iterdir() if not entry.name.endswith(".reason")]
    assert kept and all(entry.name.startswith("note.json.unreadable-") for entry in kept)


def test_private_text_is_private(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask."""
    os.umask(0)
    files.make_directory(tmp_path / "a" / "b")
    files.append(tmp_path / "a" / "b" / "c", b"x\n")
    assert [(tmp_path / "a" / name).stat().st_mode & 0o777 for name in (".", "b", "b/c")] == [0o700, 0o700, 0o600]


def test_a_name_is_synced_before_its_file_holds_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file was made by somebody who got no further; a file that holds lines costs no second sync."""
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    (tmp_path / "left.jsonl").touch()
    files.append(tmp_path / "left.jsonl", b"one\n")
    files.append(tmp_path / "left.jsonl", b"two\n")
    files.Appender(tmp_path / "new.jsonl").close()
    assert synced == [tmp_path, tmp_path]


def test_a_directory_whose_sync_failed_is_synced_before_the_next_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever tries again finds the directory made, and would never sync the one it lies in."""
    synced: list[Path] = []

    def fails_once(directory: Path) -> None:
        synced.append(directory)
        if len(synced) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "_sync_directory", fails_once)
    with pytest.raises(OSError, match="Input/output"):
        files.make_directory(tmp_path / "persona")
    files.append(tmp_path / "persona" / "segment.jsonl", b"one\n")
    assert synced == [tmp_path, tmp_path, tmp_path / "persona"]


def test_syncing_what_is_found_waits_for_nothing_and_follows_no_link(tmp_path: Path) -> None:
    """A pipe nobody writes to, a socket's name and a link to nowhere do not keep a daemon from starting."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    files.sync_found(tmp_path)


def test_what_is_being_made_is_not_listed(tmp_path: Path) -> None:
    """A job or an adapter under its unfinished name is neither run nor served, and keeps nobody from listing others."""
    home = Home(tmp_path)
    job, adapter = home.active_jobs / ".unfinished-job-1", home.adapters / "helper" / ".unfinished-git-v1.0"
    for path, record in ((job, "job.json"), (adapter, "manifest.json")):
        path.mkdir(parents=True)
        (path / record).write_text("{}")
    assert jobs.active(home) == [] and adapters.list_ids(home) == []


def test_a_directory_loses_its_name_before_it_loses_anything_else(tmp_path: Path) -> None:
    """A power cut while one is removed leaves it whole or under a name of rubbish: the rename is synced first."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "record.json").write_text("{}")
    acts: list[str] = []
    with failing() as standing, pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "fsync", "unlink", "rmdir"):
            real = getattr(os, name)
            act = partial(lambda name, real, *given: (acts.append(name), real(*given))[1], name, real)
            patch.setattr(standing, name, act, raising=False)
        files.remove(tmp_path / "made")
    assert acts == ["rename", "fsync", "unlink", "rmdir", "fsync"]

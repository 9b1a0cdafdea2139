"""Promise 3: what is being made is on no list, however much of it is there already."""

from __future__ import annotations

from genome import adapters, files, jobs
from genome.layout import Home


def test_a_job_being_made_is_no_job(home: Home) -> None:
    """The runner would start a trainer in a directory that is about to get another name."""
    with files.new_directory(home.active_jobs / "job-2025-11-20-001") as aside:
        files.put(aside / "job.json", b"{}")
        assert jobs.active(home) == []
    assert [directory.id for directory in jobs.active(home)] == ["job-2025-11-20-001"]


def test_an_adapter_being_made_is_no_adapter(home: Home) -> None:
    """Nor does it keep the others from being listed."""
    with files.new_directory(home.adapter("helper/git-v1.0")) as aside:
        files.put(aside / "manifest.json", b"{}")
        assert adapters.list_ids(home) == []
    assert list(map(str, adapters.list_ids(home))) == ["helper/git-v1.0"]

"""What wakes whom: the same promises of every way to watch a home. Nothing here waits for time to pass."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from daemon import watcher
from daemon.events import Announcer
from daemon.supervisor import recover
from genome import files, jobs
from genome.layout import Home
from genome.training import Event

linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
Changes = AsyncIterator[watcher.Names]
Watch = Callable[[Home], Changes]

JOBS = frozenset({"runner", "gate", "planner", "searcher", "rehearser"})
INGEST, PLANNER = frozenset({"ingest"}), frozenset({"planner"})
SERVED = frozenset({"deployer", "monitor", "gate", "rehearser"})
SECONDS = 20
"""Until a promise counts as broken."""


def by_inotify(home: Home) -> Changes:
    from daemon import inotify

    return inotify.changes(home)


def by_polling(home: Home) -> Changes:
    return watcher.by_watchfiles(home, polling=True)


@pytest.fixture(
    params=[pytest.param(by_inotify, marks=linux), watcher.by_watchfiles, by_polling], ids=lambda each: each.__name__
)
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(watcher, "POLL_MS", 5)
    monkeypatch.setattr(watcher, "LOOK_MS", 1000 * SECONDS)
    watching: Watch = request.param
    return watching


@pytest.fixture
def home(home: Home) -> Home:
    recover(home)
    (home.active_jobs / "job-2026-11-20-001").mkdir()
    home.archive("helper", "git").mkdir(parents=True)
    home.pending("helper", "git").mkdir()
    home.queued("helper", "git").mkdir()
    home.promotions("helper").mkdir(parents=True)
    return home


def job(home: Home) -> jobs.JobDirectory:
    return jobs.JobDirectory(home.active_jobs / "job-2026-11-20-001")


def aside(home: Home, name: str = "aside") -> Path:
    """A file outside all that is watched."""
    path = home.root / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{}\n")
    return path


Act = Callable[[Home], Iterator[None]]
"""Does one thing. It yields once: what it does before that, it does before anybody watches."""


def a_file_moved_into_the_inbox(home: Home) -> Iterator[None]:
    made = aside(home)
    yield
    made.rename(home.inbox / "a.jsonl")


def a_file_moved_to_the_top_of_the_buffer(home: Home) -> Iterator[None]:
    made = aside(home)
    yield
    made.rename(home.buffer / "a.jsonl")


def a_compressed_file_moved_into_the_inbox(home: Home) -> Iterator[None]:
    made = aside(home)
    yield
    made.rename(home.inbox / "a.jsonl.zst")


def a_dropped_file_called_as_one_of_ours(home: Home) -> Iterator[None]:
    made = aside(home)
    yield
    made.rename(home.inbox / "events.jsonl")


def a_file_in_folders_made_just_now(home: Home) -> Iterator[None]:
    yield
    (home.inbox / "p/d").mkdir(parents=True)
    (home.inbox / "p/d/a.jsonl").write_bytes(b"{}\n")


def a_folder_moved_in_with_its_file(home: Home) -> Iterator[None]:
    (home.root / "run/p/d").mkdir(parents=True)
    aside(home).rename(home.root / "run/p/d/a.jsonl")
    yield
    (home.root / "run/p").rename(home.inbox / "p")


def an_append_to_a_file_kept_open(home: Home) -> Iterator[None]:
    with (home.inbox / "a.jsonl").open("ab", buffering=0) as stream:
        stream.write(b"{}\n")
        yield
        stream.write(b"{}\n")
        yield


def a_job_held(home: Home) -> Iterator[None]:
    yield
    files.write(job(home).held, b"")


def a_job_released(home: Home) -> Iterator[None]:
    files.write(job(home).held, b"")
    yield
    files.remove(job(home).held)


def a_job_ordered(home: Home) -> Iterator[None]:
    yield
    with files.new_directory(home.active_jobs / "job-2026-11-20-002") as made:
        files.put(made / "job.json", b"{}")


def a_job_completed(home: Home) -> Iterator[None]:
    yield
    jobs.complete(home, job(home))


def training_paused(home: Home) -> Iterator[None]:
    yield
    files.write(home.paused, b"")


def a_batch_queued(home: Home) -> Iterator[None]:
    yield
    with files.new_directory(home.queued("helper", "git") / "batch-2026-11-20-001") as made:
        files.put(made / "batch.json", b"{}")


def a_batch_in_a_new_domain(home: Home) -> Iterator[None]:
    yield
    with files.new_directory(home.queued("helper", "new") / "batch-2026-11-20-001") as made:
        files.put(made / "batch.json", b"{}")


def a_batch_restored(home: Home) -> Iterator[None]:
    aside_batch = home.set_aside("helper", "git") / "batch-2026-11-20-001"
    aside_batch.mkdir(parents=True)
    (aside_batch / "batch.json").write_bytes(b"{}")
    yield
    files.remove(aside_batch)


def a_promotion(home: Home) -> Iterator[None]:
    yield
    files.create(home.promotions("helper") / "000001.json", b"{}")


def the_first_promotion_of_a_persona(home: Home) -> Iterator[None]:
    yield
    files.make_directory(home.promotions("other"))
    files.create(home.promotions("other") / "000001.json", b"{}")


def an_alert_resolved_by_hand(home: Home) -> Iterator[None]:
    yield
    files.write(home.open_alerts, b"{}")


def what_wakes_nobody(home: Home) -> Iterator[None]:
    (home.archive("helper", "git") / "batch-2026-11-20-001").mkdir()
    yield
    (home.archive("helper", "git") / "batch-2026-11-20-001/a.jsonl").write_bytes(b"{}\n")
    (home.pending("helper", "git") / "2026-11-20-001.jsonl").write_bytes(b"{}\n")
    (home.rejected / "2026-11-20.jsonl").write_bytes(b"{}\n")
    (home.inbox / "a.tmp").write_bytes(b"{}\n")
    (home.inbox / ".a.jsonl").write_bytes(b"{}\n")
    (home.inbox / ".unfinished-a").mkdir()
    job(home).log.write_bytes(b"it trains\n")
    job(home).record(Event(event="started"))
    (home.active_jobs / ".unfinished-job").mkdir()
    (home.active_jobs / ".unfinished-job/job.json").write_bytes(b"{}")
    (home.promotions("helper") / ".unfinished-000001.json.1").write_bytes(b"{}")


ACTS: list[tuple[Act, watcher.Names]] = [
    (a_file_moved_into_the_inbox, INGEST),
    (a_file_moved_to_the_top_of_the_buffer, INGEST),
    (a_compressed_file_moved_into_the_inbox, INGEST),
    (a_dropped_file_called_as_one_of_ours, INGEST),
    (a_file_in_folders_made_just_now, INGEST),
    (a_folder_moved_in_with_its_file, INGEST),
    (an_append_to_a_file_kept_open, INGEST),
    (a_job_held, JOBS),
    (a_job_released, JOBS),
    (a_job_ordered, JOBS),
    (a_job_completed, JOBS),
    (training_paused, JOBS),
    (a_batch_queued, PLANNER),
    (a_batch_in_a_new_domain, PLANNER),
    (a_batch_restored, PLANNER | {"searcher"}),
    (an_alert_resolved_by_hand, frozenset({"alerts"})),
    (a_promotion, SERVED),
    (the_first_promotion_of_a_persona, SERVED),
    (what_wakes_nobody, frozenset()),
]


async def until(changes: Changes, wanted: watcher.Names) -> watcher.Names:
    """Who was woken by the time that all who are wanted were."""
    woken: watcher.Names = frozenset()
    with anyio.fail_after(SECONDS):
        while not wanted <= woken:
            woken |= await anext(changes)
    return woken


def watched(changes: Changes, test: Callable[[Changes], Awaitable[None]]) -> None:
    """Runs ``test`` once no change is missed any more."""

    async def run() -> None:
        async with aclosing(changes):  # type: ignore[type-var]
            assert await anext(changes) == frozenset()
            await test(changes)

    anyio.run(run)


@pytest.mark.parametrize(("act", "wanted"), ACTS, ids=[act.__name__ for act, _ in ACTS])
def test_each_change_wakes_whom_it_concerns(
    watch: Watch, home: Home, monkeypatch: pytest.MonkeyPatch, act: Act, wanted: watcher.Names
) -> None:
    """And nobody else: a later change is the next that wakes anybody."""
    if act is an_append_to_a_file_kept_open:
        monkeypatch.setattr(watcher, "LOOK_MS", 20)  # polling may not see the second write of a second
    # Whose files the act does not touch shows that all of the act was seen.
    mark = a_promotion if SERVED.isdisjoint(wanted) else a_file_moved_into_the_inbox
    marked = SERVED if SERVED.isdisjoint(wanted) else INGEST
    acting, marking = act(home), mark(home)
    next(acting)
    next(marking)

    async def test(changes: Changes) -> None:
        next(acting, None)
        next(marking, None)
        assert await until(changes, wanted | marked) == wanted | marked

    watched(watch(home), test)


@linux
def test_a_folder_is_followed_wherever_it_goes(home: Home) -> None:
    """Renamed, removed and made again: what is dropped into it is seen under each of its names."""

    async def test(changes: Changes) -> None:
        (home.inbox / "p").mkdir()
        await until(changes, INGEST)
        (home.inbox / "p").rename(home.inbox / "q")
        await until(changes, INGEST)
        aside(home).rename(home.inbox / "q/a.jsonl")
        await until(changes, INGEST)
        files.remove(home.inbox / "q")
        await until(changes, INGEST)
        (home.inbox / "q").mkdir()
        await until(changes, INGEST)
        aside(home).rename(home.inbox / "q/b.jsonl")
        await until(changes, INGEST)

    watched(by_inotify(home), test)


@linux
def test_a_completed_job_is_not_watched_any_more(home: Home) -> None:
    """A watch follows its directory to another name: it is given back, or an archive of them would grow."""
    from inotify_simple import INotify

    from daemon.inotify import Tree

    with INotify(nonblocking=True) as kernel:
        tree = Tree(home, kernel)
        tree.add(Path())
        before = len(tree.watched)
        jobs.complete(home, job(home))
        assert tree.read() == JOBS
        assert len(tree.watched) == before - 1
        files.write(home.completed_jobs / job(home).id / "held", b"")
        assert not [event for event in kernel.read(timeout=0) if not event.mask & 0x8000]  # IN_IGNORED


@linux
def test_it_reads_only_what_the_kernel_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle home costs nothing: however often the event loop turns, the queue is read once for one change."""
    from inotify_simple import INotify

    reads = []
    read = INotify.read

    def counted(kernel: INotify, timeout: int) -> object:
        reads.append(timeout)
        return read(kernel, timeout)

    monkeypatch.setattr(INotify, "read", counted)

    async def test(changes: Changes) -> None:
        woken: list[watcher.Names] = []

        async def wait() -> None:
            woken.append(await anext(changes))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            for _ in range(1000):
                await anyio.lowlevel.checkpoint()
            assert reads == []
            aside(home).rename(home.inbox / "a.jsonl")
        assert woken == [INGEST]
        assert reads == [0]

    watched(by_inotify(home), test)


@linux
def test_a_trainer_at_work_does_not_wake_the_process(home: Home) -> None:
    """Neither what it appends to its log nor what is recorded of it comes to the daemon at all."""
    from inotify_simple import INotify

    from daemon.inotify import Tree

    job(home).log.write_bytes(b"")
    job(home).record(Event(event="started"))
    with INotify(nonblocking=True) as kernel:
        Tree(home, kernel).add(Path())
        with job(home).log.open("ab", buffering=0) as log:
            log.write(b"it trains\n")
        job(home).record(Event(event="progress", step=1))
        assert list(kernel.read(timeout=0)) == []


@linux
def test_a_queue_that_overflowed_wakes_everybody(home: Home) -> None:
    """What the kernel had no room to tell may have been anything; what was made meanwhile is watched afterwards."""
    from inotify_simple import INotify

    from daemon.inotify import Tree

    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with INotify(nonblocking=True) as kernel:
        tree = Tree(home, kernel)
        tree.add(Path())
        names = [home.inbox / "a.jsonl", home.inbox / "b.jsonl"]
        names[0].write_bytes(b"")
        for number in range(limit // 2 + 10):
            names[number % 2].rename(names[(number + 1) % 2])
        (home.inbox / "late").mkdir()
        assert tree.read() == watcher.EVERYBODY
        tree.read()
        aside(home).rename(home.inbox / "late/a.jsonl")
        assert tree.read() == INGEST


@linux
def test_a_file_written_through_memory_is_seen(home: Home) -> None:
    """Such writes are told only when the file is closed."""

    async def test(changes: Changes) -> None:
        descriptor = os.open(home.inbox / "a.jsonl", os.O_RDWR | os.O_CREAT)
        os.ftruncate(descriptor, 3)
        await until(changes, INGEST)
        with mmap.mmap(descriptor, 3) as memory:
            memory[:] = b"{}\n"
            memory.flush()
        os.close(descriptor)
        await until(changes, INGEST)

    watched(by_inotify(home), test)


@linux
@pytest.mark.parametrize("limit", ["max_user_watches", "max_user_instances"])
@pytest.mark.parametrize("late", [False, True])
def test_without_inotify_it_polls_and_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch, limit: str, late: bool
) -> None:
    """The event names the kernel's setting; nothing that changed in between is missed."""
    from inotify_simple import INotify

    code = {"max_user_watches": errno.ENOSPC, "max_user_instances": errno.EMFILE}[limit]

    def refused(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(watcher, "POLL_MS", 5)
    announcer = Announcer()

    async def run() -> None:
        with announcer.watch() as told:
            async with aclosing(watcher.changes(home, announcer)) as changes:
                if late:
                    assert await anext(changes) == frozenset()
                monkeypatch.setattr(INotify, "add_watch" if late or code == errno.ENOSPC else "__init__", refused)
                (home.inbox / "p").mkdir()
                assert await until(changes, watcher.EVERYBODY) == watcher.EVERYBODY
                event = await anext(told)
                assert event.name == "watching_by_polling" and f"/proc/sys/fs/inotify/{limit}" in event.facts["error"]
                aside(home).rename(home.inbox / "p/a.jsonl")
                assert await until(changes, INGEST) == INGEST

    anyio.run(run)


@linux
def test_its_descriptor_is_closed(home: Home) -> None:
    """However it ends."""
    before = sorted(Path("/proc/self/fd").iterdir())

    async def test(changes: Changes) -> None:
        with anyio.move_on_after(0):
            await anext(changes)

    watched(by_inotify(home), test)
    assert sorted(Path("/proc/self/fd").iterdir()) == before

"""Learning yields to serving: no training starts without memory for it, and none goes on below the floor."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from fixed import NOW, ROOT, SHIPPED_BASE
from test_runner import until_told

from daemon import explanation, footprints, supervisor
from daemon.admission import Admission, Granted, Short
from daemon.events import Alarm, Announcer
from daemon.events import Event as Told
from daemon.free_memory import Memory
from daemon.runner import Runner, TrainerFailed
from genome import batches, files, jobs, shapes
from genome.buffer import Buffer
from genome.config import Config, Intake
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.lines import from_signal
from genome.memory import MIB, Room
from genome.training import Beside, Event, Example, Job, TrainingSettings

FLOOR = 100
CONFIG = Config.model_validate(
    {"base": "base", "training": {"min_free_mb": FLOOR, "memory_check_seconds": 0.01, "max_starts": 1}}
)
FAKE = ROOT / "tests" / "fake_trainer.py"
TOLD = ("GENOME_PASS_TOKENS", "GENOME_GRADIENT_CHECKPOINTING")
TELLS = f"""
import json, os, runpy, sys
told = {{name: os.environ.get(name) for name in {TOLD}}}
print(json.dumps({{"event": "progress", "environment": told}}), flush=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The trainer that learns nothing, which first says what it was told."""


@dataclass
class Machine:
    """So much is free, in MiB; tests change it."""

    free: int
    total: int = 1 << 20
    gpu_free: int | None = None
    asked: list[bool] = field(default_factory=list)

    def read(self, gpu: bool) -> Memory:
        self.asked.append(gpu)
        on_gpu = None if self.gpu_free is None else self.gpu_free * MIB
        return Memory(self.free * MIB, self.total * MIB, on_gpu, on_gpu and self.total * MIB)


def order(home: Home, signal: Callable[..., Any], number: int = 1, domain: str = "git") -> JobDirectory:
    """A queued batch with its job, of a real base."""
    into = Buffer(home, Intake())
    into.accept([from_signal(signal(i, domain=domain)) for i in range(10 * number, 10 * number + 10)], NOW)
    batch = batches.form(home, "helper", domain, "test", NOW, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    job = Job(
        id=f"job-2025-11-20-{number:03d}", persona="helper", domain=domain, batch=batch.id, trainer="torch",
        base=str(SHIPPED_BASE), base_fingerprint="f" * 64, settings=TrainingSettings(), created=0,
    )  # fmt: skip
    texts = [Example(id=str(index), prompt="question " * 40, response="answer " * 40) for index in range(64)]
    return jobs.create(home, job, iter(texts))


def runner(home: Home, machine: Machine, mode: str = "works", admission: Admission | None = None) -> Runner:
    """A runner with a trainer that learns nothing, on a machine with so much memory."""

    def command(_trainer: str, job: Path, checkpoints: Path) -> list[str]:
        return [sys.executable, "-c", TELLS, str(FAKE), mode, str(job), str(checkpoints)]

    admission = admission or Admission(CONFIG.training, machine.read)
    return Runner(home, CONFIG, Announcer(), Alarm(), command, admission=admission)


def listened(run: Runner) -> list[Told]:
    told: list[Told] = []
    run.announcer.listeners.append(told.append)
    return told


def needs(directory: JobDirectory, free: int) -> Granted | Short:
    """What is said of a job where so many MiB are free."""
    return Admission(CONFIG.training, Machine(free).read).admit(directory, directory.job())


def most_and_least(directory: JobDirectory) -> tuple[int, int]:
    """MiB that must be free for whole passes, and for the most frugal ones."""
    granted, short = needs(directory, 1 << 19), needs(directory, FLOOR)
    assert isinstance(granted, Granted) and isinstance(short, Short)
    return granted.facts["memory_need_mb"] + FLOOR, short.need_mb


async def test_a_job_waits_for_memory_and_says_so_once(home: Home, signal: Callable[..., Any]) -> None:
    """It is looked at again after a while, not counted as a failed start, and starts when there is room."""
    ordered = order(home, signal)
    _, least = most_and_least(ordered)
    machine = Machine(least - 1)
    run = runner(home, machine)
    told = listened(run)
    for _ in range(3):
        assert await run.step() is not None
    assert [event.name for event in told] == ["training_waits"]
    assert (told[0].facts["need_mb"], told[0].facts["free_mb"]) == (least, least - 1)
    assert (ordered.state(), ordered.starts()) == ("waiting", 0)
    said = f"waits for memory: needs {least} MiB, {least - 1} MiB free"
    assert jobs.summary(ordered)["reason"] == said
    explained = explanation.explain(home, CONFIG, ("helper", "git"), NOW)
    assert [queued["waits"] for queued in explained[0]["queued"]] == [said]
    machine.free = least
    assert await run.step() is None
    assert ordered.state() == "judging" and jobs.summary(ordered)["reason"] is None


async def test_waiting_is_not_training(home: Home, signal: Callable[..., Any]) -> None:
    """Hours in which there was no memory are not in the seconds that a job trained."""
    ordered = order(home, signal)
    for event, time in (("started", 0.0), ("stopped", 10.0), ("waiting", 9000.0)):
        ordered.record(Event.model_validate({"event": event, "time": time}))
    await runner(home, Machine(1 << 19)).step()
    result = ordered.result()
    assert result is not None and 10 < result.train_seconds < 1000


async def test_what_was_chosen_reaches_the_trainer_and_is_kept(home: Home, signal: Callable[..., Any]) -> None:
    """Between too little and enough, a job starts with smaller passes or gradient checkpointing."""
    ordered = order(home, signal)
    most, least = most_and_least(ordered)
    assert least < most
    for number, (free, cut) in enumerate({most: (4096, False), least: (256, True)}.items()):
        run = runner(home, Machine(free))
        told = listened(run)
        await run.step()
        started = next(event for event in ordered.events() if event.event == "started").model_dump()
        assert (started["pass_tokens"], started["gradient_checkpointing"]) == cut
        assert started["memory_free_mb"] == free and 0 < started["memory_need_mb"] <= free - FLOOR
        assert told[0].name == "training_started" and told[0].facts["pass_tokens"] == cut[0]
        progress = next(event for event in ordered.events() if event.event == "progress").model_dump()
        assert progress["environment"] == dict(zip(TOLD, (str(cut[0]), str(int(cut[1]))), strict=True))
        if not number:
            for file in (ordered.result_file, ordered.events_file):
                file.unlink()
            files.remove(home.adapters / "helper")


async def test_what_no_memory_would_hold_fails_and_keeps_its_batch(home: Home, signal: Callable[..., Any]) -> None:
    """The figures and what to change are said; waiting would never end."""
    ordered = order(home, signal)
    run = runner(home, Machine(200, total=300))
    told = listened(run)
    assert await run.step() is None
    assert [event.name for event in told] == ["job_failed"]
    reason = told[0].facts["reason"]
    assert "MiB of memory at least" in reason and "200 MiB beside training.min_free_mb = 100" in reason
    assert "Lower training.max_tokens" in reason
    assert jobs.find(home, ordered.id).state() == "failed"
    assert [batch.id for batch in batches.queued(home, "helper", "git")] == ["batch-2025-11-20-001"]


async def test_below_the_floor_it_stops_at_a_checkpoint_and_goes_on_with_room(
    home: Home, signal: Callable[..., Any]
) -> None:
    """No failed start, though only one is allowed; and more must be free than at first, or it would stop again."""
    ordered = order(home, signal)
    _, least = most_and_least(ordered)
    machine = Machine(least)
    admission = Admission(CONFIG.training, machine.read)
    run = runner(home, machine, "waits", admission)
    told = listened(run)
    async with anyio.create_task_group() as group:
        group.start_soon(run.step)
        await until_told(run, "training_checkpoint")
        machine.free = FLOOR - 1
        await until_told(run, "training_waits")
    names = [event.name for event in told]
    assert names.index("training_short_of_memory") < names.index("training_stopped") < names.index("training_waits")
    assert [event.event for event in ordered.events()][-2:] == ["stopped", "waiting"]
    assert ordered.starts() == 0 and ordered.state() == "waiting"
    again = runner(home, machine, "works", admission)
    machine.free = least
    assert await again.step() is not None and ordered.state() == "waiting"
    machine.free = FLOOR + (least - FLOOR) * 5 // 4 + 1
    assert await again.step() is None and ordered.state() == "judging"


async def test_one_that_does_not_listen_is_stopped_all_the_same(home: Home, signal: Callable[..., Any]) -> None:
    """Killed after the grace because memory was short, it has not failed either."""
    ordered = order(home, signal)
    machine = Machine(1 << 19)
    config = CONFIG.model_copy(update={"daemon": CONFIG.daemon.model_copy(update={"shutdown_seconds": 0.0})})
    run = runner(home, machine, "waits")
    run.config = config
    async with anyio.create_task_group() as group:
        group.start_soon(run.step)
        await until_told(run, "training_checkpoint")
        machine.free = FLOOR - 1
        await until_told(run, "training_waits")
    assert ordered.result() is None and ordered.starts() == 0


async def test_two_jobs_are_not_admitted_to_the_same_bytes(home: Home, signal: Callable[..., Any]) -> None:
    """What the first will still take is not free for the second; once it has it, the system says so itself."""
    first, second = order(home, signal, 1), order(home, signal, 2, "gh")
    most, least = most_and_least(first)
    machine = Machine(most + least - FLOOR - 2)  # both needs are rounded up
    admission = Admission(CONFIG.training, machine.read)
    assert isinstance(admission.admit(first, first.job()), Granted)
    short = admission.admit(second, second.job())
    assert isinstance(short, Short) and 0 < short.need_mb - machine.free <= 2
    admission.heard(first.id, Event(event="progress", memory_mb=float(most)))
    assert isinstance(admission.admit(second, second.job()), Granted)
    admission.ended(second.id)
    admission.ended(first.id)
    assert admission.running == {}


async def test_the_job_that_began_last_makes_room_first(home: Home, signal: Callable[..., Any]) -> None:
    """One stop may be enough: the other goes on, and is looked at again."""
    first, second = order(home, signal, 1), order(home, signal, 2, "gh")
    machine = Machine(1 << 19)
    admission = Admission(CONFIG.training, machine.read)
    for directory in (first, second):
        admission.admit(directory, directory.job())
    machine.free = FLOOR - 1
    assert admission.too_little(first.id, "torch") is None
    assert admission.too_little(second.id, "torch") is not None
    admission.ended(second.id, for_memory=True)
    assert admission.too_little(first.id, "torch") is not None


async def test_a_job_that_was_stopped_may_always_go_on_some_day(home: Home, signal: Callable[..., Any]) -> None:
    """However often it was, it never waits for more than the machine could have, nor for passes smaller than any."""
    ordered = order(home, signal)
    _, least = most_and_least(ordered)
    machine = Machine(least + 20, total=least + 20)
    admission = Admission(CONFIG.training, machine.read)
    for _ in range(9):
        assert isinstance(admission.admit(ordered, ordered.job()), Granted)
        admission.ended(ordered.id, for_memory=True, ran_out=True)
    assert isinstance(admission.admit(ordered, ordered.job()), Granted)


async def test_the_loop_goes_on_while_a_job_is_struck_off(home: Home, signal: Callable[..., Any]) -> None:
    """Another one may be asking a GPU meanwhile, which takes seconds; also when the daemon stops."""
    turns: list[str] = []

    class Watched(Admission):
        def ended(self, job: str, for_memory: bool = False, ran_out: bool = False) -> None:
            anyio.from_thread.run_sync(turns.append, job)
            super().ended(job, for_memory, ran_out)

    first, second = order(home, signal, 1), order(home, signal, 2, "gh")
    admission = Watched(CONFIG.training, Machine(1 << 19).read)
    run = runner(home, Machine(1 << 19), "waits", admission)
    async with anyio.create_task_group() as group:
        group.start_soon(run.step)
        await until_told(run, "training_checkpoint")
        group.cancel_scope.cancel()
    assert turns == [first.id] and admission.running == {}
    await runner(home, Machine(1 << 19), "works", admission).step()
    assert sorted(turns) == [first.id, first.id, second.id] and admission.running == {}


async def test_others_that_fit_go_first(home: Home, signal: Callable[..., Any]) -> None:
    """A job that waits for memory does not stand in the way, and keeps its turn."""
    large, small = order(home, signal, 1), order(home, signal, 2, "gh")
    longer = [Example(id="long", prompt="question " * 4000, response="answer " * 400)] * 64
    large.examples.write_bytes(b"".join(each.model_dump_json().encode() + b"\n" for each in longer))
    enough = most_and_least(small)[1]
    assert enough < most_and_least(large)[1]
    await runner(home, Machine(enough)).step()
    assert (large.state(), small.state()) == ("waiting", "judging")


async def test_a_wait_that_is_over_is_told(home: Home, signal: Callable[..., Any]) -> None:
    """Also where the job did not start: held, it waits for nothing."""
    ordered = order(home, signal)
    run = runner(home, Machine(FLOOR))
    await run.step()
    told = listened(run)
    jobs.hold(home, ordered.id)
    assert await run.step() is None
    assert [(event.name, event.facts["domain"]) for event in told] == [("training_wait_ended", "git")]
    assert jobs.summary(ordered)["reason"] is None


async def test_a_trainer_killed_by_the_kernel_asks_for_more(home: Home, signal: Callable[..., Any]) -> None:
    """Its death counts as a failed start, and the next one is planned with more room."""
    ordered = order(home, signal)
    run = runner(home, Machine(1 << 19), "crashes")
    await run.step()
    assert jobs.find(home, ordered.id).state() == "failed"
    assert run.admission is not None and run.admission.stops == {ordered.id: 1}


@pytest.mark.parametrize(("mode", "trainer"), [
    ("runs out of memory", "torch"), ("crashes", "torch"), ("runs out of memory", "command"),
])  # fmt: skip
async def test_what_ran_out_of_memory_is_not_started_again_as_it_was(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mode: str, trainer: str
) -> None:
    """Of a GPU's likewise, where a trainer says so: it took more than was reckoned, whatever was free."""
    ordered = order(home, signal)
    (ordered.path / "job.json").write_bytes(ordered.job().model_copy(update={"trainer": trainer}).to_bytes())
    monkeypatch.setattr(footprints, "uses_gpu", lambda trainer: trainer == "torch")
    run = runner(home, Machine(1 << 19, gpu_free=1 << 19 if trainer == "torch" else None), mode)
    run.config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"max_starts": 3})})
    for _ in range(2):
        with pytest.raises(TrainerFailed):
            await run.step()
    await run.step()
    ended = jobs.find(home, ordered.id)
    started = [event.model_dump() for event in ended.events() if event.event == "started"]
    sizes = [event["pass_tokens"] for event in started]
    assert sizes[0] == 4096 and sizes == sorted(set(sizes), reverse=True)
    for need in ("memory_need_mb", "gpu_need_mb")[trainer == "torch" :]:
        needs = [event[need] for event in started if need in event]
        assert needs == sorted(set(needs), reverse=True)
    assert run.admission is not None and run.admission.stops == {ordered.id: 3}
    result = ended.result()
    assert result is not None and result.reason is not None
    if mode != "crashes":
        assert result.reason.endswith("the GPU has too little memory: lower the rank")


async def test_a_failure_of_another_kind_asks_for_no_memory(home: Home, signal: Callable[..., Any]) -> None:
    """Whatever its reason says."""
    ordered = order(home, signal)
    run = runner(home, Machine(1 << 19), "fails")
    await run.step()
    assert jobs.find(home, ordered.id).state() == "failed"
    assert run.admission is not None and run.admission.stops == {}


async def test_more_of_a_gpu_is_asked_for_where_the_host_has_no_more(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a stop for memory each of the two must have a quarter more, as far as it ever could."""
    ordered = order(home, signal)
    monkeypatch.setattr(footprints, "uses_gpu", lambda trainer: True)
    roomy = Admission(CONFIG.training, Machine(1 << 19, gpu_free=1 << 19).read)
    granted = roomy.admit(ordered, ordered.job())
    assert isinstance(granted, Granted)
    host = FLOOR + granted.facts["memory_need_mb"]
    on_gpu = Machine(host, total=host, gpu_free=FLOOR)
    admission = Admission(CONFIG.training, lambda gpu: replace(on_gpu.read(gpu), gpu_total=1 << 40))
    least = admission.admit(ordered, ordered.job())
    admission.ended(ordered.id, ran_out=True)
    more = admission.admit(ordered, ordered.job())
    assert isinstance(least, Short) and isinstance(more, Short) and "on the GPU" in more.reason
    assert abs((more.need_mb - FLOOR) - 1.25 * (least.need_mb - FLOOR)) <= 2
    on_gpu.gpu_free = more.need_mb
    assert isinstance(admission.admit(ordered, ordered.job()), Granted)


async def test_the_memory_of_a_gpu_counts_where_it_is_used(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked of then alone, and what is missing there is said to be there."""
    ordered = order(home, signal)
    machine = Machine(1 << 19, gpu_free=FLOOR + 1)
    Admission(CONFIG.training, machine.read).admit(ordered, ordered.job())
    monkeypatch.setattr(footprints, "uses_gpu", lambda trainer: trainer == "torch")
    admission = Admission(CONFIG.training, machine.read)
    short = admission.admit(ordered, ordered.job())
    assert machine.asked == [False, True]
    assert isinstance(short, Short) and "MiB on the GPU, 101 MiB free" in short.reason
    machine.gpu_free = 1 << 19
    granted = admission.admit(ordered, ordered.job())
    assert isinstance(granted, Granted) and granted.facts["gpu_need_mb"] > 0
    machine.gpu_free = FLOOR - 1
    assert admission.too_little(ordered.id, "torch") is not None


async def test_half_precision_is_reckoned_where_torch_computes_in_it(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base stored so, on a processor that can; or where genome.toml asks for it."""
    job = order(home, signal).job()
    processor = home.root / "processor"
    monkeypatch.setattr(footprints, "CPU", processor)

    def weight_bytes(trainer: str, dtype: str) -> float:
        settings = job.settings.model_copy(update={"dtype": dtype})
        return footprints.library(job.model_copy(update={"trainer": trainer, "settings": settings}), False).number_bytes

    assert weight_bytes("torch", "auto") == 4
    for says, expected in (("flags : fpu avx512_bf16", 2), ("Features : fp bf16", 2), ("flags : fpu avx512f", 4)):
        processor.write_text(says)
        assert weight_bytes("torch", "auto") == expected
    processor.write_text("flags : amx_bf16")
    assert [weight_bytes("torch", dtype) for dtype in ("auto", "bfloat16", "float32")] == [2, 2, 4]
    assert [weight_bytes("unsloth", dtype) for dtype in ("auto", "bfloat16")] == [4, 2]
    monkeypatch.setattr(footprints.sys, "platform", "darwin")
    monkeypatch.setattr(footprints.platform, "machine", lambda: "arm64")
    assert [weight_bytes("mlx", dtype) for dtype in ("auto", "bfloat16", "float32")] == [2, 2, 4]


@pytest.mark.parametrize(
    ("trainer", "capability", "expected"),
    [
        ("torch", "9.0", {"auto": 2, "bfloat16": 2, "float32": 4, "auto of a base in float32": 4}),
        ("torch", "7.5", {"auto": 4, "bfloat16": 2, "float32": 4, "auto of a base in float32": 4}),
        ("torch", "[N/A]", {"auto": 4, "bfloat16": 2, "float32": 4, "auto of a base in float32": 4}),
        ("unsloth", "7.5", {"auto": 2, "bfloat16": 2, "float32": 4, "auto of a base in float32": 2}),
    ],
)
async def test_a_base_on_a_gpu_is_reckoned_in_what_it_is_computed_in(
    home: Home, signal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, trainer: str, capability: str,
    expected: dict[str, int],
) -> None:  # fmt: skip
    """torch computes in bfloat16 where the GPU that CUDA puts first does; Unsloth in 16 bits unless told not to."""
    ordered = order(home, signal)
    programs = home.root / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(f'#!/bin/sh\n[ "$1" = --id=1 ] && echo "{capability}"\n')
    (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    monkeypatch.setattr(footprints, "uses_gpu", lambda trainer: True)
    monkeypatch.setattr(footprints, "packs", lambda trainer: False)
    single = home.root / "single"
    shutil.copytree(SHIPPED_BASE, single)
    config = json.loads((single / "config.json").read_text())
    (single / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    weights = shapes.of(SHIPPED_BASE).floats
    for name, number in expected.items():
        dtype, _, other = name.partition(" ")
        settings = ordered.job().settings.model_copy(update={"dtype": dtype})
        changes = {"id": name, "trainer": trainer, "settings": settings} | ({"base": str(single)} if other else {})
        admission = Admission(CONFIG.training, Machine(1 << 19, gpu_free=1 << 19).read)
        assert isinstance(admission.admit(ordered, ordered.job().model_copy(update=changes)), Granted)
        case = admission.cases[name]
        assert case is not None and case.library.number_bytes == number, name
        assert case.plan(Room(1 << 50, 1 << 50)).need.weights == number * weights


@pytest.mark.parametrize(("trainer", "ranks"), [("torch", 8 + 24), ("mlx", 8 + 24), ("unsloth", 0)])
async def test_adapters_beside_are_reckoned_where_they_are_applied(
    home: Home, signal: Callable[..., Any], trainer: str, ranks: int
) -> None:
    """Each with its own rank; Unsloth applies none."""
    ordered = order(home, signal)
    paths = []
    for rank in (8, 24):
        paths.append(home.root / f"beside-{rank}")
        paths[-1].mkdir()
        (paths[-1] / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    alone = ordered.job().model_copy(update={"trainer": trainer})
    beside = tuple(Beside(adapter=path.name, path=str(path)) for path in paths)
    needs = []
    for job in (alone, alone.model_copy(update={"id": "beside", "beside": beside})):
        admission = Admission(CONFIG.training, Machine(1 << 19).read)
        assert isinstance(admission.admit(ordered, job), Granted)
        case = admission.cases[job.id]
        assert case is not None
        needs.append(case.plan(Room(1 << 50)).need.adapter)
    number = footprints.library(alone, gpu=False).number_bytes
    copies = number * (ranks + alone.settings.rank) if trainer == "torch" else 0
    assert needs[1] - needs[0] == (4 * ranks + copies) * shapes.of(SHIPPED_BASE).factors


async def test_where_nothing_is_known_a_job_starts(home: Home, signal: Callable[..., Any]) -> None:
    """A system that does not say what is free, and a base that cannot be read, are no reason to wait for ever."""
    ordered = order(home, signal)
    assert Admission(CONFIG.training, lambda gpu: None).admit(ordered, ordered.job()) == Granted()
    odd = ordered.job().model_copy(update={"base": "/nowhere"})
    assert Admission(CONFIG.training, Machine(FLOOR).read).admit(ordered, odd) == Granted()


async def test_a_job_that_trains_elsewhere_is_no_part_of_it(home: Home, signal: Callable[..., Any]) -> None:
    """It waits for no memory and is never stopped for it; nor does it shield the one that takes it."""
    here, away = order(home, signal, 1), order(home, signal, 2, "gh")
    machine = Machine(1 << 19)
    admission = Admission(CONFIG.training, machine.read)
    admission.admit(here, here.job())
    machine.free = FLOOR - 1
    remote = away.job().model_copy(update={"trainer": "fireworks"})
    assert admission.admit(away, remote) == Granted()
    assert admission.too_little(away.id, "fireworks") is None
    assert admission.too_little(here.id, "torch") is not None


@pytest.mark.parametrize("change", [{"base": "/nowhere"}, {"trainer": "command"}, {"trainer": "somebody's"}])
async def test_what_nobody_knows_the_need_of_starts_above_the_floor(
    home: Home, signal: Callable[..., Any], change: dict[str, str]
) -> None:
    """Never refused by a guess, however large; below the floor it waits, and running it is stopped. Each time it was,
    twice as much must be free, but never more than the machine could have."""
    ordered = order(home, signal)
    longer = [Example(id="long", prompt="question " * 40000, response="answer " * 40000)] * 64
    ordered.examples.write_bytes(b"".join(each.model_dump_json().encode() + b"\n" for each in longer))
    job = ordered.job().model_copy(update=change)
    machine = Machine(FLOOR, total=4 * FLOOR)
    admission = Admission(CONFIG.training, machine.read)
    assert isinstance(admission.admit(ordered, job), Granted)
    machine.free = FLOOR - 1
    assert admission.too_little(job.id, job.trainer) is not None
    for wanted in (2 * FLOOR, 3 * FLOOR, 3 * FLOOR):
        admission.ended(job.id, for_memory=True)
        machine.free = wanted - 1
        short = admission.admit(ordered, job)
        assert isinstance(short, Short) and (short.need_mb, short.free_mb) == (wanted, wanted - 1)
        machine.free = wanted
        assert isinstance(admission.admit(ordered, job), Granted)


async def test_what_a_guess_says_is_taken_from_nobody(home: Home, signal: Callable[..., Any]) -> None:
    """A trainer that never says what memory it has does not keep others from starting; it is told a cut all the same,
    of which it may take note."""
    mine, other = order(home, signal, 1), order(home, signal, 2, "gh")
    machine = Machine(most_and_least(other)[1])
    admission = Admission(CONFIG.training, machine.read)
    granted = admission.admit(mine, mine.job().model_copy(update={"trainer": "command"}))
    assert isinstance(granted, Granted) and granted.environment.keys() == set(TOLD)
    assert isinstance(admission.admit(other, other.job()), Granted)


async def test_all_runners_of_a_daemon_share_what_is_free(home: Home) -> None:
    """Wired so, and to what the system says."""
    config = Config.model_validate({"base": "base", "training": {"max_jobs": 2}})
    made = await supervisor.compose(home, config, None, home.root, "f" * 64)  # type: ignore[arg-type]
    assert made.runners[0].admission is not None and made.runners[0].admission is made.runners[1].admission

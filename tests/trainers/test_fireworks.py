"""Training at Fireworks, against a server that speaks its documented API on a real socket."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fireworks_server import ACCOUNT, KEY, Service, serving
from fixed import NOW
from stopping import Killed
from trainer_runs import Outcome, question, run_trainer, write_job

from daemon import orders, supervisor
from daemon.runner import TrainerFailed
from daemon.trainers import catalog, child
from daemon.trainers.fireworks import dataset, run, transfer
from daemon.trainers.fireworks.api import Api
from genome import adapters, bases, batches, jobs, lora
from genome.buffer import Buffer
from genome.config import Config, Fireworks, Intake
from genome.errors import InvalidConfig
from genome.jobs import JobDirectory
from genome.layout import Home
from genome.lines import from_signal
from genome.lora import Factors, Lora
from genome.tensors import Tensor
from genome.training import EXIT_STOPPED, Event, Example, TrainingSettings

MODULE = "model.layers.0.self_attn.q_proj"
RUNNING: dict[str, Any] = {"state": "JOB_STATE_RUNNING", "jobProgress": {"percent": 40, "epoch": 2}}
DONE: dict[str, Any] = {"state": "JOB_STATE_COMPLETED", "jobProgress": {"percent": 100}}
SIGNALS = [
    question(f"What is {number}?", f"It is {number}.", weight) for number, weight in ((1, 1.0), (2, 0.5), (3, 1))
]
ANCHORS = [Example(id="anchor", prompt="Once", response=" upon", anchor=True)]


def adapter_files(directory: Path, out: int, into: int, module: str = MODULE) -> dict[str, bytes]:
    """A PEFT adapter of rank 2 on one layer."""
    directory.mkdir(parents=True)
    a, b = np.ones((2, into), np.float32), np.ones((out, 2), np.float32)
    factors = Factors(Tensor("F32", a.shape, a.tobytes()), Tensor("F32", b.shape, b.tobytes()), 2.0)
    lora.write_peft(directory, Lora({module: factors}, ""), "base")
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def right(base_path: Path, tmp_path: Path) -> dict[str, bytes]:
    """An adapter that fits the base."""
    width = json.loads((base_path / "config.json").read_bytes())["hidden_size"]
    return adapter_files(tmp_path / "right", width, width)


@pytest.fixture
def service(right: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """One whose jobs train for a while and make an adapter that fits; its key is in the environment."""
    with serving() as made:
        made.states, made.adapter = [{"state": "JOB_STATE_PENDING"}, RUNNING, DONE], right
        monkeypatch.setenv("FIREWORKS_API_KEY", KEY)
        yield made


@pytest.fixture
def settings(service: Service) -> Fireworks:
    return Fireworks(url=service.url, account=ACCOUNT, base_model="accounts/fireworks/models/base", poll_seconds=0.01)


SETTINGS = TrainingSettings(rank=16, learning_rate=3e-3, epochs=6, warmup_fraction=0.5)


@pytest.fixture
def order(base_path: Path, tmp_path: Path) -> Path:
    """A job of three signals and an anchor."""
    return write_job(tmp_path / "jobs" / "job-1", base_path, SIGNALS + ANCHORS, SETTINGS)


@pytest.fixture
def environment(settings: Fireworks, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runner gives a trainer's process."""
    for name, value in catalog.environment("fireworks", Config(base="base", fireworks=settings)).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def start(order: Path, environment: None, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs the trainer's process on the job, as the runner does."""

    def one(stop_when: Callable[[Event], bool] | None = None) -> Outcome:
        JobDirectory(order).record(Event(event="started"))
        return run_trainer("fireworks", order, tmp_path / "checkpoints", stop_when=stop_when)

    return one


@pytest.fixture
def train(order: Path, settings: Fireworks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The same within this process, without waiting between tries."""
    said = tmp_path / "said"

    def one(job: Path = order, **changed: Any) -> Outcome:
        JobDirectory(job).record(Event(event="started"))
        monkeypatch.setenv(catalog.SETTINGS_VARIABLE, settings.model_copy(update=changed).model_dump_json())
        monkeypatch.setattr(child, "Stop", lambda channel: None)
        monkeypatch.setattr(run, "Api", lambda *given: Api(*given, sleep=lambda _: None))
        with said.open("wb") as sink:
            monkeypatch.setattr(child.Channel, "open", lambda: child.Channel(sink.fileno()))
            status = run.run([str(job), str(tmp_path / "checkpoints")])
        events = [Event.model_validate_json(line) for line in said.read_bytes().splitlines()]
        return Outcome(status, events, tmp_path / "checkpoints", "")

    return one


def facts(outcome: Outcome) -> dict[str, Any]:
    """What its events say besides the usual."""
    return {name: value for event in outcome.events for name, value in (event.model_extra or {}).items()}


@pytest.mark.parametrize("state", ["COMPLETED", "EARLY_STOPPED"])
def test_a_job_ends_in_the_adapter_the_service_made(
    service: Service, start: Callable[..., Outcome], right: dict[str, bytes], state: str
) -> None:
    """Uploaded, started, looked at, fetched and checked; how far it is comes from the service, which may also have
    stopped early."""
    service.states[-1] = {"state": f"JOB_STATE_{state}"}
    outcome = start()
    assert (outcome.status, outcome.events[-1].event) == (0, "finished"), outcome.events[-1]
    assert {path.name: path.read_bytes() for path in outcome.adapter.iterdir()} == right
    assert [event.step for event in outcome.events if event.model_extra and "remote_state" in event.model_extra] == [
        0, 40, 100,
    ]  # fmt: skip
    assert [event.event for event in outcome.events].count("checkpoint") == 1


def test_what_is_sent_is_the_signals_with_their_weights(service: Service, train: Callable[..., Outcome]) -> None:
    """One chat a line, in one request; anchors stay here, and an event says how many."""
    outcome = train(keep_dataset=True)
    ((name, dataset),) = service.of("datasets").items()
    assert dataset == {"userUploaded": {}, "exampleCount": "3", "state": "READY"}
    lines = [json.loads(line) for line in service.stored[f"/storage/datasets/{name}/file"].splitlines()]
    assert lines == [{"messages": signal.messages, "weight": signal.weight} for signal in SIGNALS]
    said = facts(outcome)
    assert (said["signals"], said["kept_here"], said["left_out"]) == (3, 1, 0)
    assert len(service.requests("POST datasets/")) == 1


def test_only_the_last_answer_of_a_chat_is_learned(
    service: Service, train: Callable[..., Outcome], base_path: Path, tmp_path: Path
) -> None:
    """Earlier ones weigh nothing. What is no chat as the service takes it is left out, and counted."""
    turns = [("system", "Be short."), ("user", "Well?"), ("assistant", "No."), ("user", "Sure?"), ("assistant", "Yes.")]
    chat = Example(id="long", messages=[{"role": role, "content": text} for role, text in turns])
    odd = Example(id="odd", messages=[{"role": "tool", "content": "3"}, {"role": "assistant", "content": "It is 3."}])
    outcome = train(write_job(tmp_path / "jobs" / "job-2", base_path, [chat, odd, *SIGNALS]), keep_dataset=True)
    (name,) = service.of("datasets")
    first = json.loads(service.stored[f"/storage/datasets/{name}/file"].splitlines()[0])
    assert [message.get("weight") for message in first["messages"]] == [None, None, 0, None, None]
    assert facts(outcome)["left_out"] == 1


def test_the_service_is_asked_for_what_the_job_says(service: Service, train: Callable[..., Outcome]) -> None:
    """Settings the service has a word for are sent; nothing is carved out of the signals to measure on."""
    train()
    ((name, job),) = service.of("supervisedFineTuningJobs").items()
    assert job["dataset"] == f"accounts/{ACCOUNT}/datasets/{name}"
    assert job["baseModel"] == "accounts/fireworks/models/base" and "warmStartFrom" not in job
    assert (job["loraRank"], job["epochs"], job["learningRate"], job["batchSizeSamples"]) == (16, 6.0, 3e-3, 16)
    assert job["learningRateWarmupSteps"] == 1  # half of ⌈3 · 6 / 16⌉ = 2
    assert (job["earlyStop"], job["evalAutoCarveout"]) == (False, False)


def test_what_was_uploaded_is_removed_when_the_job_has_ended(service: Service, train: Callable[..., Outcome]) -> None:
    """Also after a failure; unless it is to stay."""
    train()
    assert service.of("datasets") == {}


async def test_through_the_daemon_nothing_of_the_key_is_written(
    service: Service, settings: Fireworks, home: Home, signal: Callable[..., Any], base_path: Path
) -> None:
    """Ordered, failed, tried again, installed: no file of the home and no event has the key, though the service repeats
    it with a refusal, nor a signed address."""
    training = {"trainer": "fireworks", "anchor_weight": 0}
    config = Config.model_validate({"base": str(base_path), "training": training, "fireworks": settings.model_dump()})
    Buffer(home, Intake()).accept([from_signal(signal(number)) for number in range(10)], NOW)
    batch = batches.form(home, "helper", "git", "test", NOW, batches.HeldOutPolicy(0.3, 150))
    assert batch is not None
    job = orders.order(home, config, batch, base_path, bases.fingerprint(base_path))
    made = await supervisor.compose(home, config, None, base_path, "f" * 64)  # type: ignore[arg-type]
    told: list[Any] = []
    made.announcer.listeners.append(told.append)
    service.faults = [("GET supervised", 503), ("GET supervised", 401)]
    with pytest.raises(TrainerFailed, match=r"\[key\]"):
        await made.runners[0].step()
    await made.runners[0].step()
    assert adapters.manifest(home, "helper/git-v1.0").trainer == "fireworks"
    assert "remote_job" in JobDirectory(home.active_jobs / job.id).events_file.read_text()
    files = [path for path in home.root.rglob("*") if path.is_file()]
    assert len(files) > 8
    for secret in (KEY, "signature=secret"):
        assert not [path for path in files if secret.encode() in path.read_bytes()] and secret not in repr(told)


def test_a_signed_address_gets_no_key(service: Service, train: Callable[..., Outcome]) -> None:
    """It lies with somebody else, and is the permission itself."""
    train()
    fetched = service.requests("GET /storage/")
    assert len(fetched) == 2 and all("Authorization" not in each.headers for each in fetched)


@pytest.mark.parametrize("status", [503, 429, 0])
@pytest.mark.parametrize(
    "request_", ["GET datasets/", "POST datasets", "POST datasets/", "POST supervised", "GET models/", "GET /storage/"]
)
def test_what_passes_is_tried_again(
    service: Service, tmp_path: Path, status: int, request_: str,
    train: Callable[..., Outcome],
) -> None:  # fmt: skip
    """503, 429 and a dropped connection, at any request."""
    service.faults = [(request_, status)]
    assert train().status == 0
    assert service.faults == [] and (tmp_path / "checkpoints" / "adapter").is_dir()


@pytest.mark.parametrize("request_", ["POST datasets", "POST datasets/", "POST supervised"])
def test_an_answer_that_was_lost_makes_nothing_twice(
    service: Service, train: Callable[..., Outcome], request_: str
) -> None:
    """Carried out, and the connection dropped before the answer: there is one dataset and one job."""
    service.faults = [(request_, -1)]
    assert train().status == 0
    assert len(service.of("supervisedFineTuningJobs")) == 1 and len(service.requests("POST datasets/")) == 1


def test_a_service_that_does_not_answer_is_asked_again(service: Service, train: Callable[..., Outcome]) -> None:
    """No answer within timeout_seconds is a try that failed, not the end and not a wait for ever."""
    service.faults = [("GET models/", -2)]
    assert train(timeout_seconds=1.0).status == 0 and service.carried_out.is_set()


def test_a_service_that_stays_away_fails_the_job_for_now(service: Service, train: Callable[..., Outcome]) -> None:
    """After max_retries further tries the reason is the service's; the runner's next try goes on from there."""
    service.states = [RUNNING, DONE]
    service.faults = [("GET models/", 503)] * 4
    outcome = train(max_retries=3)
    last = outcome.events[-1]
    assert outcome.status == 1
    assert last.event == "failed" and "failed 4 times: 503: not now" in (last.reason or "")
    assert train(max_retries=3).status == 0 and len(service.requests("POST supervised")) == 1


@pytest.mark.parametrize("state", ["PAUSED", "RE_QUEUEING", "WRITING_RESULTS", "SOMETHING_NEW", "UNSPECIFIED"])
def test_a_job_that_has_not_ended_is_looked_at_again(
    service: Service, train: Callable[..., Outcome], state: str
) -> None:
    """Also in a state that nobody knew when this was written."""
    service.states = [{"state": f"JOB_STATE_{state}"}] * 3 + [DONE]
    assert train().status == 0 and len(service.requests("GET supervisedFineTuningJobs/")) == 5


@pytest.mark.parametrize("state", sorted(run.OVER))
def test_a_job_that_was_ended_by_somebody_fails(service: Service, train: Callable[..., Outcome], state: str) -> None:
    """Cancelled at the service, or removed: it is over here."""
    service.states = [RUNNING, {"state": f"JOB_STATE_{state}"}]
    outcome = train()
    assert outcome.status == 1 and f"ended as {state}: it gives no reason" in (outcome.events[-1].reason or "")


def test_what_is_only_measured_on_stays_here() -> None:
    """Anchors, and signals that are never trained on."""
    measured = SIGNALS[0].model_copy(update={"id": "measured", "validation": True})
    data = dataset.prepare([*SIGNALS, measured, *ANCHORS])
    assert (len(data.lines), data.kept_here, data.left_out) == (3, 2, 0)


def test_a_refused_key_names_the_variable(service: Service, train: Callable[..., Outcome], monkeypatch: Any) -> None:
    """401 is not tried again, and says where the key is looked for; so does a missing one."""
    monkeypatch.setenv("FIREWORKS_API_KEY", "another")
    outcome = train()
    assert outcome.status == 1 and [event.event for event in outcome.events][-1] == "failed"
    assert "FIREWORKS_API_KEY" in (outcome.events[-1].reason or "") and len(service.asked) == 1
    monkeypatch.delenv("FIREWORKS_API_KEY")
    outcome = train()
    assert "FIREWORKS_API_KEY is not set" in (outcome.events[-1].reason or "") and len(service.asked) == 1
    monkeypatch.setenv("FIREWORKS_API_KEY", "of two\nlines")
    outcome = train()
    assert "FIREWORKS_API_KEY holds something else" in (outcome.events[-1].reason or "") and len(service.asked) == 1


def test_stopped_it_goes_on_with_the_same_job(service: Service, start: Callable[..., Outcome]) -> None:
    """TERM ends the process, not the training: the next one looks at the job that there is."""
    service.states = [RUNNING]
    stopped = start(stop_when=lambda event: bool(event.model_extra and event.model_extra.get("remote_state")))
    assert (stopped.status, stopped.events[-1].event) == (EXIT_STOPPED, "stopped")
    service.states = [DONE]
    continued = start()
    assert continued.status == 0 and continued.adapter.is_dir()
    assert len(service.requests("POST supervised")) == 1 and len(service.requests("POST datasets/")) == 1


def test_a_process_killed_before_it_heard_starts_no_second_job(
    service: Service, start: Callable[..., Outcome], order: Path, tmp_path: Path
) -> None:
    """The job's name is on disk before the service is asked for it: the next process finds the job that was started."""
    service.faults = [("POST supervised", -2)]
    command = catalog.command("fireworks", order, tmp_path / "checkpoints")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        assert service.carried_out.wait(60)
        process.kill()
    assert not json.loads((tmp_path / "checkpoints" / "fireworks.json").read_bytes())["started"]
    assert start().status == 0
    assert len(service.requests("POST supervised")) == 1 and len(service.of("supervisedFineTuningJobs")) == 1


def test_a_job_that_failed_there_says_why_and_is_paid_once(
    service: Service, train: Callable[..., Outcome], order: Path, home: Home, tmp_path: Path
) -> None:
    """The runner's further tries repeat the reason; whoever asks for the job again gets a new one."""
    service.states = [{"state": "JOB_STATE_FAILED", "status": {"code": "INTERNAL", "message": "out of GPUs"}}]
    for _ in range(3):
        outcome = train()
        assert outcome.status == 1 and "ended as FAILED: out of GPUs" in (outcome.events[-1].reason or "")
    assert len(service.of("supervisedFineTuningJobs")) == 1 and service.of("datasets") == {}
    service.states = [DONE]
    JobDirectory(order).events_file.unlink()  # a pause, or a clock: nothing but being asked for again pays
    assert train().status == 1 and len(service.of("supervisedFineTuningJobs")) == 1
    retried(home, order, tmp_path)
    assert train().status == 0 and len(service.of("supervisedFineTuningJobs")) == 2


def retried(home: Home, order: Path, tmp_path: Path) -> None:
    """What `genome training start --job` does to the checkpoints of a job that failed for good."""
    failed = JobDirectory(home.completed_jobs / order.name)
    shutil.copytree(order, failed.path)
    shutil.copytree(tmp_path / "checkpoints", home.checkpoints(failed.id))
    jobs.retry(home, failed)
    shutil.rmtree(tmp_path / "checkpoints")
    shutil.copytree(home.checkpoints(failed.id), tmp_path / "checkpoints")


def test_stopped_between_two_starts_it_is_paid_once(
    service: Service, train: Callable[..., Outcome], order: Path
) -> None:
    """A stop that was asked for takes a start off the count, and lets no second job begin."""
    service.states = [{"state": "JOB_STATE_FAILED"}]
    JobDirectory(order).record(Event(event="started"))
    JobDirectory(order).record(Event(event="stopped"))
    assert train().status == 1 and train().status == 1
    assert len(service.of("supervisedFineTuningJobs")) == 1


@pytest.mark.parametrize("states", [[DONE], [{"state": "JOB_STATE_FAILED"}]])
@pytest.mark.parametrize("dies_at", ["clearing", "moving"])
def test_what_was_uploaded_is_removed_though_the_process_died(
    service: Service, train: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, states: Any, dies_at: str
) -> None:
    """Between the adapter or the end that was written down and the removal: the next process makes up for it, once."""
    service.states = states
    with monkeypatch.context() as patched:
        if dies_at == "clearing":
            patched.setattr(run._Run, "_put_away", killed)
        else:
            patched.setattr(run.files, "move", killed)
        if dies_at == "clearing" or states != [DONE]:
            with pytest.raises(Killed):
                train()
            assert len(service.of("datasets")) == 1
    first, again = train(), train()
    assert first.status == again.status == int(states != [DONE])
    assert service.of("datasets") == {} and len(service.requests("DELETE")) == 1
    assert len(service.of("supervisedFineTuningJobs")) == 1


def killed(*_arguments: Any) -> None:
    raise Killed


def test_a_job_that_was_removed_there_is_not_started_again(
    service: Service, train: Callable[..., Outcome], start: Callable[..., Outcome]
) -> None:
    """It may have been paid already."""
    service.states = [RUNNING]
    start(stop_when=lambda event: event.event == "checkpoint")
    (name,) = service.of("supervisedFineTuningJobs")
    del service.resources[f"supervisedFineTuningJobs/{name}"]
    outcome = train()
    assert outcome.status == 1 and "no longer there" in (outcome.events[-1].reason or "")
    assert len(service.requests("POST supervised")) == 1


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ("garbage", "adapter_model.safetensors"),
        ("shape", "in the adapter and"),
        ("layer", "the base has no linear layer"),
        ("pickle", "has no adapter_model.safetensors"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    service: Service, train: Callable[..., Outcome], tmp_path: Path, spoilt: str, reason: str
) -> None:
    """Nothing is left in the adapter's place, and the failure says what is wrong with it; it is not fetched again."""
    if spoilt == "garbage":
        service.adapter = {**service.adapter, "adapter_model.safetensors": b"<html>not found</html>"}
    elif spoilt == "pickle":
        service.adapter = {"adapter_config.json": b"{}", "adapter_model.bin": b"\x80\x04."}
    else:
        name = MODULE if spoilt == "shape" else "model.layers.99.self_attn.q_proj"
        service.adapter = adapter_files(tmp_path / "wrong", 6, 4, name)
    outcome = train()
    assert outcome.status == 1 and reason in (outcome.events[-1].reason or ""), outcome.events[-1]
    assert not outcome.adapter.exists() and service.of("datasets") == {}
    looks = len(service.asked)
    assert train().events[-1].reason == outcome.events[-1].reason and len(service.asked) == looks


def test_a_large_dataset_goes_to_the_storage_in_one_piece(
    service: Service, settings: Fireworks, tmp_path: Path
) -> None:
    """Above the service's limit it is put to a signed address whole, once more where the connection breaks."""
    file = tmp_path / "train.jsonl"
    file.write_bytes(b'{"messages": []}\n' * 200_000)
    service.faults = [("PUT", 0)]
    told: list[int] = []
    api = Api(settings, lambda: told.append(1), sleep=lambda _: None)
    transfer.put_dataset(api, "large", file, 200_000, limit=1 << 20)
    assert service.stored == {"/storage/datasets/large/train.jsonl": file.read_bytes()}
    assert len(service.requests("PUT")) == 2 and len(told) > 3
    assert service.of("datasets")["large"]["state"] == "READY"
    transfer.put_dataset(api, "large", file, 200_000, limit=1 << 20)
    assert len(service.requests("PUT")) == 2


def test_it_goes_on_from_its_parent(
    service: Service, train: Callable[..., Outcome], base_path: Path, right: dict[str, bytes], tmp_path: Path
) -> None:
    """The parent is sent once, and the job starts from it with its rank."""
    parent = tmp_path / "right"
    for number in (2, 3):
        job = write_job(tmp_path / "jobs" / f"job-{number}", base_path, SIGNALS, parent=parent)
        assert train(job).status == 0
        shutil.rmtree(tmp_path / "checkpoints")
    first, second = service.of("supervisedFineTuningJobs").values()
    assert first["warmStartFrom"] == second["warmStartFrom"] and "baseModel" not in first and first["loraRank"] == 2
    model = first["warmStartFrom"].rpartition("/")[2]
    sent = {name.rpartition("/")[2]: data for name, data in service.stored.items() if model in name}
    assert sent == right and len(service.requests("PUT")) == 2
    assert service.of("models")[model]["peftDetails"] == {
        "baseModel": "accounts/fireworks/models/base", "r": 2, "targetModules": ["q_proj"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("signals", "rank", "reason"),
    [(SIGNALS[:2], 32, "no fewer than 3"), (SIGNALS, 24, "only of powers of 2 up to 32")],
)
def test_what_the_service_would_refuse_is_refused_before_anything_is_sent(
    service: Service, train: Callable[..., Outcome], base_path: Path, tmp_path: Path, signals: Any, rank: int,
    reason: str,
) -> None:  # fmt: skip
    """Too few chats, a rank it does not train."""
    job = write_job(tmp_path / "jobs" / "job-2", base_path, signals, TrainingSettings(rank=rank))
    outcome = train(job)
    assert outcome.status == 1 and reason in (outcome.events[-1].reason or "") and service.asked == []


def test_nothing_is_told_to_other_trainers_about_it(settings: Fireworks) -> None:
    """Which account it is stands in the environment of its own process alone."""
    config = Config(base="base", fireworks=settings)
    assert catalog.environment("torch", config) == catalog.environment("command", config) == {}


def test_auto_is_never_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the machine unless genome.toml says so by name."""
    assert not any(catalog.TRAINERS[name].remote for name in ("torch", "mlx", "unsloth"))
    assert not catalog.TRAINERS[catalog.resolve("auto")].remote


def test_a_config_that_cannot_train_there_is_refused(tmp_path: Path) -> None:
    """Without account or base, or with looks so far apart that it would pass for hung."""
    from genome.config import parse

    whole = '[fireworks]\naccount = "a"\nbase_model = "accounts/fireworks/models/b"\n'
    for text, key in (("", "account"), (f"{whole}poll_seconds = 900", "poll_seconds")):
        with pytest.raises(InvalidConfig, match=key):
            parse(f'base = "b"\n[training]\ntrainer = "fireworks"\n{text}', tmp_path)
    parse(f'base = "b"\n[training]\ntrainer = "fireworks"\n{whole}', tmp_path)

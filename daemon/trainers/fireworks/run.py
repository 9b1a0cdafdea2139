"""One process's part of a training at the service: upload, start, look, fetch; each only as far as it is not done yet.

SIGTERM ends the process at once, at any time: the job there goes on, and the next process finds it by its name on disk.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from safetensors import safe_open

from daemon.trainers import child
from daemon.trainers import examples as tokenised
from daemon.trainers.catalog import SETTINGS_VARIABLE
from daemon.trainers.contract import ADAPTER
from daemon.trainers.fireworks import dataset, remote, transfer
from daemon.trainers.fireworks.api import Api
from daemon.trainers.fireworks.remote import Remote
from genome import bases, files, lora
from genome.config import Fireworks
from genome.errors import Conflict, GenomeError, InvalidAdapter, InvalidConfig, NotFound
from genome.jobs import JobDirectory, read_examples
from genome.lora import Lora
from genome.training import ENDED, EXIT_STOPPED, Job

STEPS = 100
"""A job's progress is told in per cent."""
TRAINED = frozenset({"COMPLETED", "EARLY_STOPPED"})
OVER = frozenset({"FAILED", "CANCELLED", "CANCELLING", "EXPIRED", "DELETING", "DELETING_CLEANING_UP", "DELETED",
                   "ARCHIVED"})  # fmt: skip
"""Without a model. A state that is in neither set is looked at again."""
WEIGHTS = frozenset({"F64", "F32", "F16", "BF16"})


class Ended(GenomeError):
    """The job at the service came to its end without an adapter that can be used."""


def run(arguments: list[str] | None = None) -> int:
    """A trainer process's whole life; returns its exit status."""
    paths = child.arguments("Runs one training job at Fireworks", "fireworks.json and adapter/", arguments)
    channel = child.Channel.open()
    child.Stop(channel)

    def train() -> int:
        _Run(JobDirectory(paths.job), paths.checkpoints, channel).to_the_end()
        channel.say("finished", step=STEPS, steps=STEPS)
        return 0

    return child.to_its_end(channel, train)


class _Run:
    def __init__(self, directory: JobDirectory, checkpoints: Path, channel: child.Channel) -> None:
        self.directory, self.checkpoints, self.channel = directory, checkpoints, channel
        self.settings, self.percent = _settings(), 0
        self._said = time.monotonic()

    def to_the_end(self) -> None:
        job, settings, found = self.directory.job(), self.settings, remote.read(self.checkpoints)
        if (self.checkpoints / ADAPTER).is_dir():  # finished, but the daemon went away before it heard
            self._put_away(found)
            return
        if found is not None and found.ended:  # each is paid: none but `jobs.retry` lets another begin
            self._end(found)
        examples = read_examples(self.directory.examples)
        tokenised.check(examples)
        data = dataset.prepare(examples)
        parent = lora.read(Path(job.parent_path)) if job.parent_path else None
        self.api = Api(settings, self._alive)
        files.make_directory(self.checkpoints)
        files.remove_unfinished(self.checkpoints)
        self.remote = found if found is not None and found.is_of(settings) else self._new(job, settings)
        order = remote.order(job, settings, self.remote, len(data.lines), parent)
        self._say(account=settings.account, remote_job=self.remote.id, base_model=settings.base_model,
                  signals=len(data.lines), kept_here=data.kept_here, left_out=data.left_out)  # fmt: skip
        try:
            if not self.remote.started:
                self._start(job, order, data, parent)
            model = self._await_model()
            self._fetch(model, job)
        except Ended as error:
            self._keep(ended=str(error))
            self._end(self.remote)
        self._put_away(self.remote)

    def _end(self, found: Remote) -> NoReturn:
        """Says why the job ended without an adapter, also when a process died halfway through this."""
        if (self.checkpoints / remote.FILE).exists():
            files.move(self.checkpoints / remote.FILE, self.checkpoints / ENDED)
        self._put_away(found)
        raise Ended(found.ended)

    def _new(self, job: Job, settings: Fireworks) -> Remote:
        new = Remote(id=remote.called(job.id), account=settings.account, url=settings.url)
        new.write(self.checkpoints / remote.FILE)
        return new

    def _start(self, job: Job, order: dict[str, Any], data: dataset.Dataset, parent: Lora | None) -> None:
        path = f"supervisedFineTuningJobs/{self.remote.id}"
        if self.api.find(path) is None:  # else the process that asked for it died before it wrote that down
            if parent is not None and job.parent_path:
                transfer.put_adapter(self.api, remote.parent_id(parent), Path(job.parent_path), parent)
            upload = self.checkpoints / "train.jsonl"
            files.write(upload, data.lines)
            transfer.put_dataset(self.api, self.remote.id, upload, len(data.lines))
            files.remove(upload)
            with suppress(Conflict):  # a try whose answer was lost started it
                self.api.post("supervisedFineTuningJobs", order, supervisedFineTuningJobId=self.remote.id)
        self._keep(started=True)
        self.channel.say("checkpoint", step=0, steps=STEPS, remote_job=self.remote.id)

    def _await_model(self) -> str:
        """Looks at the job until it has a model; its id."""
        while True:
            found = self._look()
            state = str(found.get("state", "")).removeprefix("JOB_STATE_")
            progress = found.get("jobProgress") or {}
            self.percent = STEPS if state in TRAINED else max(self.percent, min(int(progress.get("percent") or 0), 99))
            self._say(remote_state=state, epoch=progress.get("epoch"))
            if state in TRAINED:
                return str(found.get("outputModel") or self.remote.id).rpartition("/")[2]
            if state in OVER:
                words = (found.get("status") or {}).get("message") or "it gives no reason"
                raise self._ended(f"ended as {state}: {self.api.shown(str(words))}")
            self.api.sleep(self.api.settings.poll_seconds)

    def _look(self) -> dict[str, Any]:
        try:
            return self.api.get(f"supervisedFineTuningJobs/{self.remote.id}")
        except NotFound as error:
            raise self._ended(f"is no longer there: {error.args[0]}") from error

    def _fetch(self, model: str, job: Job) -> None:
        try:
            with files.new_directory(self.checkpoints / ADAPTER) as aside:
                transfer.fetch_adapter(self.api, model, aside)
                check_base(lora.read(aside), bases.resolve(job.base))
        except InvalidAdapter as error:  # fetched again, it would be the same
            raise self._ended(f"made an adapter that is unusable: {error}") from error

    def _ended(self, how: str) -> Ended:
        again = f"genome training start --job {self.directory.id} starts another one"
        return Ended(f"the job {self.remote.id} at Fireworks {how}", again)

    def _put_away(self, found: Remote | None) -> None:
        """Takes back what was uploaded. That it fails is no reason to lose an adapter, and is said in the log."""
        settings = self.settings
        if settings.keep_dataset or found is None or found.cleared or not found.is_of(settings):
            return
        try:
            with suppress(NotFound):
                Api(settings, self._alive).delete(f"datasets/{found.id}")
        except GenomeError as error:
            print(f"the dataset {found.id} is still at the service: {error}", file=sys.stderr)
            return
        found.model_copy(update={"cleared": True}).write(self.checkpoints / (ENDED if found.ended else remote.FILE))

    def _keep(self, **changed: Any) -> None:
        self.remote = self.remote.model_copy(update=changed)
        self.remote.write(self.checkpoints / remote.FILE)

    def _alive(self) -> None:
        if time.monotonic() - self._said >= self.settings.poll_seconds:
            self._say()

    def _say(self, **facts: Any) -> None:
        self._said = time.monotonic()
        self.channel.say("progress", step=self.percent, steps=STEPS, **facts)
        if self.channel.closed:  # the daemon is gone, and the next one starts its own process
            os._exit(EXIT_STOPPED)


def check_base(adapter: Lora, base: Path) -> None:
    """Raises InvalidAdapter if an update does not have the shape of the base's weights of that name."""
    places: dict[str, tuple[int, int]] = {}
    named: set[str] = set()
    for file in bases.weight_files(base):
        with safe_open(file, framework="numpy") as weights:
            for module in {name.removesuffix(".weight") for name in weights.keys()} & set(adapter.modules):  # noqa: SIM118
                tensor = weights.get_slice(f"{module}.weight")
                named.add(module)
                if tensor.get_dtype() in WEIGHTS and len(shape := tensor.get_shape()) == 2:  # else it is quantised
                    places[module] = (shape[0], shape[1])
    if not named:
        raise InvalidAdapter(
            f"the base has no linear layer {next(iter(adapter.modules))}",
            "Is fireworks.base_model the same model as base in genome.toml?",
        )
    known = {module: factors for module, factors in adapter.modules.items() if module in places}
    lora.check_places(Lora(known, adapter.digest), places)


def _settings() -> Fireworks:
    """What genome.toml says now; the runner passes it on."""
    try:
        return Fireworks.model_validate_json(os.environ.get(SETTINGS_VARIABLE, "{}"))
    except ValidationError as error:
        raise InvalidConfig(f"{SETTINGS_VARIABLE} does not hold [fireworks]: {error.errors()[0]['msg']}") from None

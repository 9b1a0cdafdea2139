"""What a trainer is to the daemon, and the run that the three shipped ones share.

The daemon's runner starts ``python -m MODULE JOB_DIRECTORY CHECKPOINT_DIRECTORY`` in a session of its own. A trainer

- reads ``job.json`` (`genome.training.Job`) and ``train.jsonl`` (`genome.training.Example`: signals, then anchors);
- prints `genome.training.Event` lines on stdout and nothing else; what a library prints goes to stderr, the job's log;
- every ``checkpoint_steps`` steps, and on SIGTERM, leaves all it needs to go on in CHECKPOINT_DIRECTORY, complete or
  not at all; after SIGTERM it says ``stopped`` and exits with `EXIT_STOPPED`;
- started again, goes on from there and ends in the adapter it would have ended in undisturbed;
- ends with a PEFT directory CHECKPOINT_DIRECTORY/adapter, says ``finished`` and exits 0; or says ``failed`` with a
  reason that a user can act on and exits 1.

The loss of a step is the mean cross-entropy of its signals' response tokens, each weighted by its signal's weight, plus
``preference_weight`` times the mean preference loss of its pairs, plus, for each of the two teachers of anchors (the
bare base, and what serves as the run begins), ``anchor_weight`` times the mean of KL(teacher ‖ adapted) over its
anchors' response tokens; all in nats.
Where there are validation examples, the run ends with the weights whose mean cross-entropy on them was lowest;
`early_stop` decides.

This module knows no library but for its tokenizer. A trainer of ours names its package to `run`, which imports it once
threads are set and calls its ``load(job)``; what that returns keeps to `Trainer`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import xxhash

from daemon.trainers import child, comparisons, early_stop, schedule
from daemon.trainers import examples as tokenised
from daemon.trainers.comparisons import Measured
from daemon.trainers.examples import Examples, Tokens
from genome import bases, files, training
from genome.errors import InvalidInput
from genome.jobs import JobDirectory, read_examples
from genome.training import EXIT_STOPPED, Job, TrainingSettings

ADAPTER = "adapter"
"""Name of the finished PEFT directory in the checkpoint directory."""
CHECKPOINT = "step-"
"""Prefix of a checkpoint's directory; the number of steps made follows. `POSITION` lies beside the trainer's files."""
POSITION = "position.json"
BEST = "best-"
"""Prefix of the directory of the adapter with the lowest validation loss so far; the number of steps follows."""


@dataclass(frozen=True)
class Lesson:
    """What one step learns from, and how fast."""

    signals: list[Tokens]
    anchors: list[Tokens]
    learning_rate: float
    average_decay: float | None = None
    """What the average of the weights keeps of itself after the step. None: it is the newest weights."""

    @property
    def held(self) -> list[list[Tokens]]:
        """The anchors by their teacher: each part has the whole of their weight, however many are in the other."""
        parts = ([each for each in self.anchors if each.of_parent is of_parent] for of_parent in (False, True))
        return [part for part in parts if part]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.signals)) + sum(map(len, self.anchors))


@dataclass(frozen=True)
class Losses:
    """Of one step, before it, in nats. ``divergence`` is KL(teacher ‖ adapted) on the anchors, added over both
    teachers, ``preference`` the loss on pairs; each None without any."""

    cross_entropy: float
    divergence: float | None = None
    preference: float | None = None

    @staticmethod
    def of(lesson: Lesson, cross_entropy: float, divergence: float, preference: float) -> Losses:
        """Sums over a lesson's batches, which are 0 for what it lacks."""
        pairs = any(signal.wrong for signal in lesson.signals)
        return Losses(cross_entropy, divergence if lesson.anchors else None, preference if pairs else None)

    @property
    def shown(self) -> float:
        """What a curve shows: the cross-entropy, or where nothing is learned by it the preference."""
        return self.cross_entropy if self.cross_entropy or self.preference is None else self.preference

    @property
    def total(self) -> float:
        return self.cross_entropy + (self.divergence or 0.0) + (self.preference or 0.0)


class Trainer(Measured, Protocol):
    """One library's way to make steps: a base with a LoRA, and an optimizer.

    What it measures and exports is the LoRA's average over the last steps, as `Lesson.average_decay` says.
    """

    def train(self, course: Course) -> None:
        """Makes one optimizer step a lesson, and tells ``course.made`` until that says to stop."""

    def save(self, directory: Path) -> None:
        """Writes the LoRA, its average, the optimizer's state and the random generators' into an empty directory."""

    def restore(self, directory: Path) -> None:
        """Reads what ``save`` wrote; the next step is what it would have been."""

    def export(self, directory: Path) -> None:
        """Writes the average into an empty directory in PEFT's format."""


class Course:
    """The steps of a run: what each learns from, in an order that follows from the job alone, and how many are made."""

    def __init__(self, examples: Examples, settings: TrainingSettings, made: Callable[[Lesson, Losses], bool]) -> None:
        self.examples, self.settings = examples, settings
        self.done = 0
        self.watch = early_stop.Watch()
        self.step_seconds = 0.0
        """Spent in steps by this process: from one call of ``made`` to the next, without what is done in it."""
        self._began = time.monotonic()
        self._made = made
        self._plan = schedule.steps(_lengths(examples.signals), _lengths(examples.anchors), settings)

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def over(self) -> bool:
        """Whether all is done, or more would not help."""
        return (self.done == len(self) and not self.validates) or self.watch.over(self.settings.patience)

    @property
    def validates(self) -> bool:
        """Whether the validation loss is to be measured now, and was not."""
        if not self.examples.validation or self.watch.step == self.done:
            return False
        an_epoch = math.ceil(len(self.examples.signals) / self.settings.batch_size)
        return early_stop.due(self.done, len(self), an_epoch)

    def lesson(self, number: int) -> Lesson:
        """Of the step numbered from 0."""
        step = self._plan[number]
        signals = [self.examples.signals[index] for index in step.signals]
        anchors = [self.examples.anchors[index] for index in step.anchors]
        return Lesson(signals, anchors, self.learning_rate(number), self.average_decay(number))

    def learning_rate(self, number: int) -> float:
        return schedule.learning_rate(number, len(self), self.settings)

    def average_decay(self, number: int) -> float | None:
        return schedule.average_decay(number, len(self), self.settings)

    def remaining(self) -> Iterator[Lesson]:
        for number in range(self.done, len(self)):
            yield self.lesson(number)

    def made(self, losses: Losses) -> bool:
        """To be called after each step; False: make no more."""
        self.step_seconds += time.monotonic() - self._began
        lesson = self.lesson(self.done)
        self.done += 1
        self.check_finite("loss", losses.total)
        goes_on = self._made(lesson, losses) and not self.over
        self._began = time.monotonic()
        return goes_on

    def check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise InvalidInput(
                f"the {name} is not finite after step {self.done}",
                f"Lower training.learning_rate in genome.toml (it is {self.settings.learning_rate:g})",
            )


def run(package: str, arguments: list[str] | None = None) -> int:
    """A trainer process's whole life; returns its exit status."""
    paths = child.arguments("Runs one training job", "checkpoints and adapter/", arguments)
    channel = child.Channel.open()
    stop = child.Stop(channel)
    return child.to_its_end(channel, _Run(package, paths.job, paths.checkpoints, channel, stop).to_the_end)


class _Stopped(Exception):
    """The run was told to stop in the middle of a measurement."""


class _Run:
    """One process's part of a run, from whatever checkpoint there is."""

    trainer: Trainer
    course: Course
    examples_digest: str
    """Of train.jsonl: a checkpoint belongs to the examples it was learned from."""
    progress: child.Progress

    def __init__(self, package: str, job: Path, checkpoints: Path, channel: child.Channel, stop: child.Stop) -> None:
        self.package, self.checkpoints, self.channel, self.stop = package, checkpoints, channel, stop
        self.directory = JobDirectory(job)

    def to_the_end(self) -> int:
        if (self.checkpoints / ADAPTER).is_dir():  # finished, but the daemon went away before it heard
            self.channel.say("finished")
            return 0
        self._load(self.directory.job())
        self._restore()
        self.progress = child.Progress(self.channel, self.course.done, len(self.course))
        self.progress.began(self.course.examples)
        self.stop.defer()
        if self.course.validates:  # the process before was stopped while it did
            self._validate()
        if not self.course.over:
            self.trainer.train(self.course)
        if not self.course.over:
            if not self._must_stop():  # said to be stopped, it would be started again for ever
                raise RuntimeError(f"{self.package} ended at step {self.course.done} of {len(self.course)}")
            self._checkpoint()
            self._say("stopped")
            return EXIT_STOPPED
        self.progress.catch_up()
        if self.course.watch.best_step:
            files.move(self._best(), self.checkpoints / ADAPTER)
        else:
            with files.new_directory(self.checkpoints / ADAPTER) as aside:
                self.trainer.export(aside)
        self._say("finished", memory_mb=child.memory_mb(), step_seconds=round(self.course.step_seconds, 3))
        return 0

    def _load(self, job: Job) -> None:
        """Cheap checks first: a job that cannot run says so before a library has been imported."""
        lines = read_examples(self.directory.examples)
        self.examples_digest = xxhash.xxh3_64_hexdigest(self.directory.examples.read_bytes())
        tokenised.check(lines)
        base = bases.resolve(job.base)
        child.before_importing()
        with child.importing():
            self.trainer = import_module(self.package).load(job)
            tokenizer = _tokenizer(base)
        stops = tokenised.stop_tokens(base, tokenizer)
        if job.settings.anchor_weight == 0:
            lines = [line for line in lines if not line.anchor]
        max_tokens = min(job.settings.max_tokens, tokenised.context_tokens(base))
        objective = training.objective(job.settings, lines)
        examples = tokenised.prepare(lines, tokenizer, stops, max_tokens, objective)
        prepared = comparisons.prepared(examples, self.trainer, child.Comparing(self.channel).told)
        self.course = Course(prepared, job.settings, self._after_step)

    def _after_step(self, lesson: Lesson, losses: Losses) -> bool:
        self.progress.stepped(lesson, losses)
        if self.course.validates:
            self._validate()
        if self._must_stop():
            return False
        if self.course.done % self.course.settings.checkpoint_steps == 0 and not self.course.over:
            self._checkpoint()
        return True

    def _validate(self) -> None:
        """Measures the validation loss, and keeps the adapter if it never was as low. Told to stop meanwhile it leaves
        that to the process that goes on."""
        course, comparing = self.course, child.Comparing(self.channel)

        def told(done: int, of: int) -> None:
            comparing.told(done, of)
            if self._must_stop():
                raise _Stopped

        try:
            loss = comparisons.loss(course.examples.validation, self.trainer, told)
        except _Stopped:
            return
        course.check_finite("validation loss", loss)
        course.watch = course.watch.after(course.done, loss)
        if course.watch.best_step == course.done:
            if self._best().exists():  # of a process that was killed after its last checkpoint
                files.remove(self._best())
            with files.new_directory(self._best()) as aside:
                self.trainer.export(aside)
        self.progress.validated(course.watch)

    def _best(self) -> Path:
        return self.checkpoints / f"{BEST}{self.course.watch.best_step:08d}"

    def _must_stop(self) -> bool:
        return self.stop.requested or self.channel.closed

    def _checkpoint(self) -> None:
        self.progress.catch_up()  # the steps before it are not made again
        newest = self.checkpoints / f"{CHECKPOINT}{self.course.done:08d}"
        if not newest.exists():
            with files.new_directory(newest) as aside:
                self.trainer.save(aside)
                (aside / POSITION).write_text(json.dumps(self._position()))
        for older in self._checkpoints()[:-1]:
            files.remove(older)
        # The best one a checkpoint names stays until a newer checkpoint is there: a run may have to go back to it.
        for older in self.checkpoints.glob(f"{BEST}*"):
            if older != self._best():
                files.remove(older)
        self._say("checkpoint")

    def _checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.checkpoints.glob(f"{CHECKPOINT}*"))

    def _restore(self) -> None:
        """Puts the newest checkpoint back, if there is one."""
        files.remove_unfinished(self.checkpoints)
        for path in reversed(self._checkpoints()):
            position = json.loads((path / POSITION).read_bytes())
            if self._take(position):
                self.trainer.restore(path)
                return
            print(f"{path} is not of this run and is removed", file=sys.stderr)
            files.remove(path)

    def _take(self, position: dict[str, Any]) -> bool:
        """Puts the course where a checkpoint says it was; False, and nothing changed, if that is not of this run."""
        before = self.course.done, self.course.watch
        with suppress(KeyError, TypeError):
            self.course.done, self.course.watch = position["step"], early_stop.Watch(**position["validation"])
            if position == self._position() and (not self.course.watch.best_step or self._best().is_dir()):
                return True
        self.course.done, self.course.watch = before
        return False

    def _position(self) -> dict[str, Any]:
        course = self.course
        return {"trainer": self.package, "examples": self.examples_digest, "step": course.done, "steps": len(course),
                "validation": asdict(course.watch)}  # fmt: skip

    def _say(self, event: str, **facts: Any) -> None:
        self.channel.say(event, step=self.course.done, steps=len(self.course), **facts)


def _tokenizer(base: Path) -> Any:
    """Every shipped trainer's library brings transformers along."""
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


def _lengths(examples: Sequence[Tokens]) -> list[int]:
    return [len(example) for example in examples]

"""A trainer as a child process: its channel to the daemon, the request to stop, and what it sets for its libraries."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from genome import blas
from genome.errors import GenomeError
from genome.training import EXIT_STOPPED, Event

if TYPE_CHECKING:
    from daemon.trainers.contract import Lesson, Losses
    from daemon.trainers.early_stop import Watch
    from daemon.trainers.examples import Examples

SECONDS_BETWEEN_PROGRESS = 0.5
SECONDS_BETWEEN_COMPARISONS = 5.0
LOSS_DIGITS = 5
"""Of each loss in the list that an event carries."""
NO_MEMORY = ("out of memory", "allocate memory")
"""What an error says that only its words tell: CUDA's own, and that of PyTorch's allocator on a CPU."""
LESS_MEMORY = (
    "Lower training.max_tokens or training.rank in genome.toml, take a smaller or a quantised base, or stop what else "
    "takes memory"
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


class Channel:
    """Events for the daemon, one JSON line each, written whole."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.closed = False
        """Nobody reads any more: the daemon is gone, and the next one starts its own trainer."""

    @classmethod
    def open(cls) -> Channel:
        """Takes stdout for events; whatever else is printed from here on, also by C libraries, goes to stderr."""
        sys.stdout.flush()
        descriptor = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(descriptor)

    def say(self, event: str, **facts: Any) -> None:
        line = Event.model_validate({"event": event, **facts}).model_dump_json(exclude_none=True).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except BrokenPipeError:
            self.closed = True


def arguments(doing: str, left: str, given: list[str] | None) -> argparse.Namespace:
    """``job`` and ``checkpoints``: the directories every trainer is started with. ``left``: what it leaves there."""
    parser = argparse.ArgumentParser(description=f"{doing}; the daemon's runner starts this.")
    parser.add_argument("job", type=Path, metavar="JOB_DIRECTORY", help="holds job.json and train.jsonl")
    parser.add_argument("checkpoints", type=Path, metavar="CHECKPOINT_DIRECTORY", help=f"gets {left}")
    return parser.parse_args(given)


def to_its_end(channel: Channel, work: Callable[[], int]) -> int:
    """The exit status ``work`` returns; 1 if it fails, and then the reason is told."""
    try:
        return work()
    except GenomeError as error:
        channel.say("failed", reason=str(error))
    except Exception as error:
        traceback.print_exc()
        summary = (str(error).strip() or "no message").splitlines()[0]
        reason = f"{type(error).__name__}: {summary}"
        if _is_out_of_memory(error):
            channel.say("failed", reason=f"{reason}. {LESS_MEMORY}", out_of_memory=True)
        else:
            channel.say("failed", reason=reason)
    return 1


def _is_out_of_memory(error: Exception) -> bool:
    """Also a GPU's, of which each library has an error of its own; none is imported to know it by."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY))


class Stop:
    """SIGTERM. Before the first step there is nothing to save, and the process ends at once."""

    def __init__(self, channel: Channel) -> None:
        self.requested = False
        self._deferred = False
        self._channel = channel
        signal.signal(signal.SIGTERM, self._on_signal)

    def defer(self) -> None:
        """From now on a request only sets ``requested``, and the loop leaves a checkpoint first."""
        self._deferred = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self._deferred:
            self._channel.say("stopped")
            os._exit(EXIT_STOPPED)


class Progress:
    """Says how far a run is, at most twice a second and always at its first step."""

    def __init__(self, channel: Channel, done: int, steps: int) -> None:
        self._channel, self._steps = channel, steps
        self._first = self._step = done
        self._tokens, self._losses = 0, list[float]()
        self._newest: tuple[Lesson, Losses] | None = None
        """The step that was made last, if nothing was said of it."""
        self._began = self._said = time.monotonic()

    def began(self, examples: Examples) -> None:
        counts = {"signals": len(examples.signals), "anchors": len(examples.anchors), "pairs": len(examples.pairs)}
        counts |= {"validation": len(examples.validation), "cut": examples.cut, "left_out": examples.left_out}
        print(", ".join(f"{name} {count}" for name, count in counts.items()), file=sys.stderr)
        self._channel.say("progress", step=self._step, steps=self._steps, memory_mb=memory_mb(), **counts)

    def stepped(self, lesson: Lesson, losses: Losses) -> None:
        self._step += 1
        self._tokens += lesson.tokens
        self._losses.append(losses.shown)
        self._newest = lesson, losses
        if self._step == self._first + 1 or time.monotonic() - self._said >= SECONDS_BETWEEN_PROGRESS:
            self.catch_up()

    def catch_up(self) -> None:
        """Says what was not said yet: to be called before what a run goes on from, or ends with."""
        if self._newest is None:
            return
        lesson, losses = self._newest
        self._said = time.monotonic()
        elapsed = max(self._said - self._began, 1e-6)
        self._channel.say(
            "progress",
            step=self._step,
            steps=self._steps,
            loss=losses.shown,
            losses=[float(f"{loss:.{LOSS_DIGITS}g}") for loss in self._losses],
            anchor_loss=losses.divergence,
            preference_loss=losses.preference,
            learning_rate=lesson.learning_rate,
            tokens_per_second=round(self._tokens / elapsed, 1),
            eta_seconds=round(elapsed / (self._step - self._first) * (self._steps - self._step), 1),
            memory_mb=memory_mb(),
        )
        self._losses.clear()
        self._newest = None

    def validated(self, watch: Watch) -> None:
        """Tells a measurement of the validation loss."""
        self._channel.say(
            "progress",
            step=self._step,
            steps=self._steps,
            validation_loss=watch.loss,
            best_validation_loss=watch.best,
            best_step=watch.best_step,
        )


class Comparing:
    """Says every few seconds that a run measures what it is compared with: one that is silent for long is stopped."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._said = channel, time.monotonic()

    def told(self, done: int, of: int) -> None:
        """So many texts of so many are measured. Of the steps nothing is said: where a run goes on may not be known."""
        if time.monotonic() - self._said >= SECONDS_BETWEEN_COMPARISONS:
            self._said = time.monotonic()
            self._channel.say("progress", compared=done, to_compare=of, memory_mb=memory_mb())


def memory_mb() -> float:
    """Highest resident memory of this process, in MiB."""
    with suppress(OSError, StopIteration):  # Linux; what getrusage says there begins with the parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        highest = next(line for line in lines if line.startswith("VmHWM:"))
        return round(int(highest.split()[1]) / 1024, 1)
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(highest / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def before_importing() -> None:
    """Sets for this process what libraries read when they are imported: how many kernels they keep, and that they ask
    no hub. Priority and thread counts are given to every trainer by the runner."""
    blas.keep_few_kernels()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"  # the base is here; nothing is to be looked up
    if sys.platform == "linux":
        _keep_freed_memory()


@contextmanager
def importing() -> Iterator[None]:
    """No collection of garbage in here, nor of what was made in here: libraries make millions of objects and drop few.

    A fifth of the time to import them goes into looking.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _keep_freed_memory() -> None:
    """Every step allocates what the last one freed; fetched from the kernel again, it costs up to a third of a step."""
    with suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(option, 1 << 30)

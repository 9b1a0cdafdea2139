"""The supervisor, the worker and whatever trainer there is, as processes that can be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fixed import ROOT

from genome.layout import Home

HERE = Path(__file__).parent
LOOK_SECONDS = 0.005
STOP_SECONDS = 60.0


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def command_lines() -> dict[int, list[str]]:
    """Of every process that may be seen, by its id."""
    if not Path("/proc/self/cmdline").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True).stdout
        return {int(line.split()[0]): line.split()[1:] for line in listed.splitlines()}
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found[int(path.parent.name)] = path.read_bytes().decode(errors="replace").split("\0")
    return found


@dataclass
class Served:
    """A server process that is to run all the time."""

    name: str
    script: Path
    home: Home
    socket_path: Path
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": f"{HERE}:{ROOT}", "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            command = [sys.executable, str(self.script), str(self.home.root)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def is_up(self) -> bool:
        """Whether somebody listens at its door."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            try:
                caller.connect(str(self.socket_path))
            except OSError:
                return False
        return True

    def kill(self) -> str | None:
        """kill -9. Returns what is wrong if it had ended by itself."""
        ended = self.process.poll()
        self.process.kill()
        self.process.wait()
        return None if ended is None else f"the {self.name} ended by itself with {ended}: {self.last_words()}"

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def last_words(self) -> str:
        return self.log.read_bytes()[-2000:].decode(errors="replace")


@dataclass
class Processes:
    """Everything that runs for one home."""

    home: Home
    supervisor: Served
    worker: Served
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def started(cls, home: Home, logs: Path) -> Processes:
        def served(name: str, socket_path: Path) -> Served:
            return Served(name, HERE / f"kills_{name}.py", home, socket_path, logs / f"{name}.log")

        made = cls(home, served("supervisor", home.daemon_socket), served("worker", home.worker_socket))
        made.supervisor.start()
        made.worker.start()
        return made

    def trainers(self) -> dict[int, str]:
        """Process id → checkpoint directory of every trainer of this home, also of one nobody waits for any more."""
        root = str(self.home.root)
        return {
            pid: words[-1] or words[-2]  # /proc ends with a separator
            for pid, words in command_lines().items()
            if "kills_trainer" in words and any(word.startswith(root) for word in words)
        }

    def trainer(self) -> int | None:
        """Found without looking at all processes: the runner writes whom it started into the job's lock."""
        for lock in self.home.root.glob("checkpoints/*/lock"):
            with suppress(OSError, ValueError):
                pid = int(lock.read_text())
                if pid in self.trainers():
                    return pid
        return None

    def kill_trainer(self) -> bool:
        pid = self.trainer()
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def one_trainer_a_job(self) -> None:
        jobs = list(self.trainers().values())
        self.wrong += [f"{jobs.count(job)} trainers of {job} at once" for job in set(jobs) if jobs.count(job) > 1]

    def restart(self, served: Served) -> None:
        if ended := served.kill():
            self.wrong.append(ended)
        served.start()

    def unexpected(self) -> Counter[str]:
        """What a loop of the supervisor stumbled over and nobody had foreseen, by kind."""
        said = (line for line in self.supervisor.log.read_text().splitlines() if '"event": "unexpected"' in line)
        return Counter(json.loads(line)["exception"].splitlines()[-1].partition(":")[0] for line in said)

    def end(self) -> None:
        """Leaves nothing behind, whatever the test came to."""
        for served in (self.supervisor, self.worker):
            served.kill()
        for pid in self.trainers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

"""What every test gets: a home of its own, and nothing of the user's."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
from fixed import NOW, SHIPPED_BASE

from genome.layout import Home
from genome.signals import Defaults, Signal, from_object

# Read when libraries are imported, by what tests start as well. Tests run on all cores: more threads only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # a worker that ends says so to the test that ended it


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the user's home, or asks a hub."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("GENOME_HOME", str(tmp_path / "genome"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """An event loop for all tests: what gRPC still has to say to one that is closed fails the next test."""
    yield


LONGEST = ("trainers", "test_circle.py", "torture")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: begun last, one would run on while the other cores have nothing left."""
    ours = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(ours).parts[0] not in LONGEST)


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and iscoroutinefunction(item.obj):
        item.fixturenames.append("one_loop")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "genome")
    made.inbox.mkdir(parents=True)
    return made


@pytest.fixture
def correction() -> Callable[..., dict[str, Any]]:
    """One line's object; fields can be replaced or, with None, left out."""

    def make(number: int = 0, **fields: Any) -> dict[str, Any]:
        line = {
            "type": "correction",
            "personaId": "helper",
            "domain": "git",
            "input": f"question {number}",
            "wrongOutput": "no",
            "correctOutput": f"answer {number}",
            **fields,
        }
        return {key: value for key, value in line.items() if value is not None}

    return make


@pytest.fixture
def signal(correction: Callable[..., dict[str, Any]]) -> Callable[..., Signal]:
    return lambda number=0, **fields: from_object(correction(number, **fields), Defaults(int(NOW * 1000)))


@pytest.fixture
def drop(home: Home) -> Callable[..., Path]:
    """Moves a file of lines (objects or raw bytes) into the inbox with one rename."""

    def put(*lines: dict[str, Any] | bytes, name: str = "drop.jsonl", end: bytes = b"\n") -> Path:
        data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + end
        aside = home.root / f"{name}.aside"
        aside.write_bytes(data)
        return aside.rename(home.inbox / name)

    return put


@pytest.fixture(scope="session")
def base_path() -> Path:
    """The shipped base."""
    return SHIPPED_BASE


@pytest.fixture
def genome(home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a verb in this home; (exit code, standard output, standard error)."""

    from daemon import cli

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["genome", *arguments, "--home", str(home.root)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run

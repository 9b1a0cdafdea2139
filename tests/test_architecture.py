"""The import rule: who may know whom. The rule is stated when it fails."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("genome", "daemon", "inference_worker")
MAY_IMPORT = {"genome": {"genome"}, "daemon": {"daemon", "genome"}, "inference_worker": {"inference_worker", "genome"}}
HEAVY = {"torch", "transformers", "peft", "mlx", "mlx_lm", "unsloth", "trl", "accelerate", "datasets"}
SILENT = {"structlog", "logging", "grpc", "anyio", "asyncio"}
"""What the domain does without: it is synchronous, never logs and knows no wire. genome/v1 is generated."""


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "v1" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def is_heavy_room(path: Path) -> bool:
    return any(part.endswith("_lora") or part.startswith("engine_") for part in path.parent.parts)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_meet_on_disk_and_on_the_wire_only(package: str) -> None:
    """genome imports neither other package; daemon and inference_worker import genome and never each other."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if top(name) in PACKAGES and top(name) not in MAY_IMPORT[package]
    ]
    assert not wrong, f"{package} may import {sorted(MAY_IMPORT[package])} of ours: {wrong}"


def test_heavy_libraries_stay_in_their_rooms() -> None:
    """Only daemon/trainers/*_lora and inference_worker/engine_* load torch, transformers, mlx or unsloth; but for the
    tokenizer, inside the trainer's own process, and for every engine of the worker."""
    tokenizers = {ROOT / "daemon/trainers/contract.py", ROOT / "inference_worker/text.py"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in PACKAGES
        for path in modules(package)
        if not is_heavy_room(path)
        for name in imports(path)
        if top(name) in HEAVY and not (path in tokenizers and top(name) == "transformers")
    ]
    assert not wrong, f"only *_lora/ and engine_*/ may: {wrong}"


def test_the_domain_is_silent_and_synchronous() -> None:
    """genome/ never logs, waits on no event loop and knows no gRPC."""
    wrong = [
        f"{path.name} imports {name}" for path in modules("genome") for name in imports(path) if top(name) in SILENT
    ]
    assert not wrong, wrong


def test_only_the_catalogue_is_imported_from_trainers() -> None:
    """Whoever lists trainers imports none of them."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("daemon")
        if "trainers" not in path.parts
        for name in imports(path)
        if name.startswith("daemon.trainers") and name != "daemon.trainers.catalog"
    ]
    assert not wrong, wrong


def test_only_files_writes_syncs_renames_and_locks() -> None:
    """A crash can only fall between acts of genome/files.py."""
    acts = {"fsync", "fdatasync", "replace", "flock", "rmtree", "link", "write", "rename", "unlink", "truncate"}
    anywhere = {"write_bytes", "write_text", "touch", "mkdir", "unlink", "rmdir", "symlink_to", "hardlink_to"}
    calls = [
        (path, node.lineno, ast.unparse(node.func.value), node.func.attr)
        for path in modules("genome")
        if path.name != "files.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} calls {owner}.{name}"
        for path, line, owner, name in calls
        if name in anywhere or (name in acts and owner in {"os", "shutil", "fcntl"})
    ]
    assert not wrong, wrong


def test_the_command_line_loads_nothing_heavy() -> None:
    """`genome --help` and the supervisor start without torch, mlx, numpy-heavy or hub libraries."""
    code = "import sys, daemon.cli, daemon.supervisor; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & (HEAVY | {"huggingface_hub", "tokenizers"})


def test_import_daemon_is_ours() -> None:
    """python-daemon has the same import name; here `daemon` is this project's."""
    import daemon

    assert Path(daemon.__file__).parent == ROOT / "daemon"


def test_the_grpc_stubs_are_current() -> None:
    """What is committed in genome/v1 is what proto/ gives."""
    from genome.v1 import generate

    assert generate.stale() == []

"""Makes the gRPC stubs from proto/: `python -m genome.v1.generate`; with --check, fails when they are not current."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted((ROOT / "proto").rglob("*.proto"))
# grpcio-tools ships mypy's .pyi output for messages; services stay untyped.
OUTPUTS = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def generate(into: Path) -> None:
    """Writes the stubs of every proto file under ``into``; they import as ``genome.v1.<name>_pb2``."""
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{include}"]
    arguments += [f"--{kind}_out={into}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(arguments + [str(proto) for proto in PROTOS]) != 0:
        raise SystemExit("protoc refused the proto files; its message stands above")


def stale() -> list[str]:
    """Names of committed stubs that differ from what the proto files give now."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stubs = [Path("genome/v1") / f"{proto.stem}{suffix}" for proto in PROTOS for suffix in OUTPUTS]
        return [
            str(stub)
            for stub in stubs
            if not (ROOT / stub).exists() or (ROOT / stub).read_bytes() != (Path(scratch) / stub).read_bytes()
        ]


def main() -> None:
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
    elif names := stale():
        raise SystemExit(f"not current: {', '.join(names)}. Run `make proto` and commit the result.")


if __name__ == "__main__":
    main()

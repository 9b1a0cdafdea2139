"""Coverage-guided fuzzing of the line parser: the fast reader against the model of record, on any bytes.

    pip install -e '.[torture]'
    python tests/fuzz/fuzz_line.py -max_total_time=60 [corpus directory]

Ends with a crash file if anything but InvalidInput is raised, or if the two differ.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["genome.lines", "genome.signals", "genome.segments"]):
    from genome import lines, segments, signals  # noqa: F401

from same_line import compare_line, compare_stored  # noqa: E402

SEEDS = [
    {"type": "correction", "personaId": "helper", "domain": "git", "input": "q", "wrongOutput": "w",
     "correctOutput": "a", "context": {"k": [1, 2.5, None, True]}, "source": "ai", "timestamp": 5, "weight": 0.5,
     "adapter": {"id": "x", "digest": "d", "generation": 7}, "session": "s",
     "history": [{"role": "user", "content": "h"}]},
    {"type": "mistake", "persona_id": "helper", "input": "q", "wrong_output": "w", "context": "c", "id": "i"},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"prompt": "q", "completion": "a", "label": False},
    {"metric": "csat", "value": 0.5, "personaId": "helper", "timestamp": 5, "adapter": {"id": "x"}, "session": "s"},
    {"type": "metric", "persona_id": "helper", "input": "csat", "value": 1},
    {"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"},
]  # fmt: skip
"""What mutation begins with."""
SCRATCH = Path(tempfile.mkdtemp()) / "2025-11-20-001.jsonl"


def one(data: bytes) -> None:
    compare_line(data)
    compare_stored(data, SCRATCH)


def seeded() -> str:
    """A directory of the seeds, and every string of the schema as a word of a dictionary beside it."""
    folder = Path(tempfile.mkdtemp())
    for number, seed in enumerate(SEEDS):
        (folder / f"seed-{number}").write_text(json.dumps(seed))
    return str(folder)


def dictionary() -> str:
    words = {word for seed in SEEDS for word in seed} | {"positive", "import", "automated", "human", "null", "1e400",
                                                         "-0", "NaN", "\\\\ud800", "assistant", "system"}  # fmt: skip
    path = Path(tempfile.mkdtemp()) / "words"
    path.write_text("".join(f'"{word}"\n' for word in sorted(words)))
    return str(path)


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], f"-dict={dictionary()}", *sys.argv[1:], seeded()], one)
    atheris.Fuzz()

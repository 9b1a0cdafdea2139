"""Small JSON files of ours: one frozen pydantic model each, with a schema version, written whole.

A record that cannot be read is never overwritten: `read` moves it aside with the reason beside it and raises Damaged.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genome import files
from genome.errors import Damaged


class Record(BaseModel):
    """What lies on disk as one JSON object. ``record_schema`` is written as ``schema`` and must match on reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    SCHEMA: ClassVar[int] = 1
    record_schema: int = Field(default=1, alias="schema")

    def to_bytes(self) -> bytes:
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        record = cls.model_validate_json(data)
        if record.record_schema != cls.SCHEMA:
            raise ValueError(f"schema {record.record_schema}, this version reads {cls.SCHEMA}")
        return record

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises FileNotFoundError if it is not there, Damaged (and moves it aside) if it cannot be understood."""
        data = path.read_bytes()
        try:
            return cls.from_bytes(data)
        except (ValidationError, ValueError) as error:
            aside = path.with_name(f"{path.name}.unreadable-{int(time.time())}")
            files.move(path, aside)
            files.write(aside.with_name(f"{aside.name}.reason"), f"{error}\n".encode())
            raise Damaged(
                f"{path} cannot be read as {cls.__name__}: {_first_line(error)}; it was moved to {aside.name}"
            ) from error

    def write(self, path: Path) -> None:
        files.write(path, self.to_bytes())


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    return str(error).splitlines()[0]

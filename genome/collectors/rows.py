"""Files applications keep their data in, read as rows: JSON lines, one JSON list, CSV and tab-separated columns."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genome.errors import InvalidInput

COLUMNS = {".csv": ",", ".tsv": "\t"}
"""Endings of names, and what parts columns."""


@dataclass(frozen=True)
class Row:
    """One decoded row, or why it is none."""

    number: int
    """Its line, or in a JSON list its place; from 1."""
    value: Any = None
    trouble: str = ""


def read(data: bytes, name: str) -> Iterator[Row]:
    """Rows of a file of that name; what is neither named nor begins as CSV or a JSON list is taken as JSON lines."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is not UTF-8 (byte {error.start})") from None
    delimiter = next((mark for ending, mark in COLUMNS.items() if name.lower().endswith(ending)), "")
    if delimiter:
        return _columns(text, delimiter, name)
    return _list(text, name) if text.lstrip().startswith("[") else _lines(text)


def _lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield Row(number, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Row(number, trouble=f"not JSON: {error}")


def _list(text: str, name: str) -> Iterator[Row]:
    """A list of objects. A line may be a list too: a conversation's messages."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "\n" in text.strip():
            return _lines(text)
        raise InvalidInput(f"{name} is not JSON: {error}") from None
    if found and all(isinstance(one, dict) and ("role" in one or "from" in one) for one in found):
        return iter([Row(1, found)])
    return (Row(number, one) for number, one in enumerate(found, 1))


def _columns(text: str, delimiter: str, name: str) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if None in row:
                yield Row(rows.line_num, trouble="more columns than the first line names")
            else:
                yield Row(rows.line_num, {key: value for key, value in row.items() if value not in (None, "")})
    except csv.Error as error:
        raise InvalidInput(f"{name} is not CSV: line {rows.line_num}: {error}") from None

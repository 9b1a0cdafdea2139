"""Compressed files (`.jsonl.gz`, `.jsonl.zst`), unpacked a little at a time.

A file may be several compressed ones, one after the other, as `cat a.gz b.gz` makes it.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import zstandard

SUFFIXES = (".jsonl.gz", ".jsonl.zst")
ERRORS = (EOFError, zlib.error, zstandard.ZstdError)
READ_BYTES, FED_BYTES = 1 << 16, 1 << 10
"""Read at a time, and unpacked at a time: a bomb of zeros becomes some 30 MB at once, no more."""
BLOCK_BYTES = 1 << 20
"""Given at a time, about."""


def blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """What the file holds. Raises one of ERRORS where it is damaged or ends too early, after what came before that."""
    parts: list[bytes] = []
    size = 0
    try:
        for part in _unpacked(stream, name):
            parts.append(part)
            size += len(part)
            if size >= BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
    except ERRORS:
        yield b"".join(parts)
        raise
    yield b"".join(parts)


def is_whole(packed: bytes, name: str) -> bool:
    """Whether a file that holds just this would be neither damaged nor cut off."""
    try:
        return all(True for _ in _unpacked(io.BytesIO(packed), name))
    except ERRORS:
        return False


def _unpacked(stream: BinaryIO, name: str) -> Iterator[bytes]:
    gzip = name.endswith(".gz")
    member: Any = None
    for fed in _fed(stream):
        packed = fed
        while packed:
            if member is None:
                packed = packed.lstrip(b"\0") if gzip else packed  # tapes and block devices pad with zeros
                if not packed:
                    break
                member = zlib.decompressobj(wbits=31) if gzip else zstandard.ZstdDecompressor().decompressobj()
            if block := member.decompress(packed):
                yield block
            packed = member.unused_data if member.eof else b""
            if member.eof:
                member = None
    if member is not None:
        raise EOFError("it ends too early")


def _fed(stream: BinaryIO) -> Iterable[bytes]:
    while read := stream.read(READ_BYTES):
        for start in range(0, len(read), FED_BYTES):
            yield read[start : start + FED_BYTES]

"""What can go wrong, in the words a user reads: what happened, to what, and what to try.

The edges translate by class: processes into the exit codes below, the gRPC services into status codes.
"""

from __future__ import annotations


class GenomeError(Exception):
    """Something expected went wrong. The message says what and where; ``hint`` says what to try."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}. {self.hint}" if self.hint else message


class InvalidInput(GenomeError):
    """What the user or a client gave cannot be used as it is."""


class InvalidConfig(InvalidInput):
    """genome.toml, or what it points at, cannot be used."""


class InvalidAdapter(InvalidInput):
    """An adapter's files are incomplete, damaged, or made for another base."""


class NotFound(GenomeError):
    """Something named does not exist."""


class Conflict(GenomeError):
    """What was asked contradicts the present state."""


class Busy(GenomeError):
    """Another process holds what is needed, or a queue is full; trying again later can help."""

    def __init__(self, message: str, hint: str = "", retry_seconds: float | None = None) -> None:
        super().__init__(message, hint)
        self.retry_seconds = retry_seconds
        """When, where that is known."""


class DiskFull(Busy):
    """There is no room to write; nothing that was accepted before is touched."""


class Unavailable(GenomeError):
    """The worker or the daemon does not answer."""


class Damaged(GenomeError):
    """A file of ours cannot be read any more; it has been moved aside."""


EXIT_UNEXPECTED, EXIT_INTERRUPTED = 1, 130
EXIT_REPAIRED = 10
"""`genome fsck --repair` found something, and mended all of it."""
EXIT_CODES: dict[type[GenomeError], int] = {
    InvalidInput: 3,
    NotFound: 4,
    Conflict: 5,
    Busy: 6,
    Unavailable: 7,
    Damaged: 8,
}


def exit_code(error: GenomeError) -> int:
    """Of a process that ends with ``error``."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), EXIT_UNEXPECTED)

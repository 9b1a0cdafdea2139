"""`python -m inference_worker HOME`: the worker alone, without the command line."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog

from genome import config
from genome.errors import GenomeError, exit_code
from genome.layout import Home
from inference_worker.server import run


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m inference_worker HOME", file=sys.stderr)
        return 2
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            # Plain tracebacks: the default one prints local variables, and with them what people wrote.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    home = Home(Path(sys.argv[1]))
    try:
        return run(config.load(home), home)
    except GenomeError as error:
        print(f"genome worker: {error}", file=sys.stderr)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())

"""`python kills_supervisor.py HOME`: the supervisor as it is, which knows one more trainer."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from daemon import host
from daemon.supervisor import serve
from daemon.trainers import catalog
from genome import config
from genome.layout import Home

TRAINER = "kills"


def main() -> None:
    home = Home(Path(sys.argv[1]))
    host.configure_logging()
    catalog.TRAINERS[TRAINER] = catalog.Entry("kills_trainer")
    anyio.run(serve, home, config.load(home))


if __name__ == "__main__":
    main()

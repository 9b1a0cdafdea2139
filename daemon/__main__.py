"""`python -m daemon` is `genome`."""

from daemon.cli import main

main()

"""What triggers remember can be read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from genome import files
from genome.checks.problems import ASK, Problem, View, parsed
from genome.trigger_facts import TriggerMemory


def check(view: View) -> Iterator[Problem]:
    for persona, domain in view.home.domains():
        path = view.home.triggers(persona, domain)
        if path.exists() and isinstance(found := parsed(TriggerMemory, path), Problem):
            yield Problem(path, found.what, f"{ASK}: its schedule begins anew", partial(files.remove, path))

"""Cuts the power after every act of a turn and starts again from what may be left. See test_lost_writes.py."""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from acknowledged import acknowledged, lost_at_acknowledgement
from acts import Die, Plan
from campaign import KILLED, Campaign, forked, leave, read_trace, run
from crash_points import points
from medium import Change, Medium, State, lay_out
from model import broken, half_visible
from turn import prepare, turn

from genome.layout import Home

Trace = list[dict[str, Any]]
CHANCE = re.compile(rb'"(created|time|received|train_seconds)":\s*[0-9.]+|\.json\.[0-9]+')
"""Times and process ids: what differs between two runs and makes no other state."""
RANDOM_STATES = 3
"""A prefix, besides the ordered ones."""


def as_dropped(told: Campaign, pristine: Home) -> Home:
    """A home to begin with. The inbox's files are links, as in every state: a file keeps its inode over a power cut."""
    home = Home(told.fresh("home"))
    lay_out(Medium(home.root, [], pristine.root).state(0), home.root)
    return home


def recorded(told: Campaign) -> tuple[Medium, Trace]:
    """One turn that is left alone, act by act."""
    pristine = prepare(told.fresh("pristine"))
    home, plan = as_dropped(told, pristine), Plan(told.fresh("trace"))
    status, words = forked(partial(turn, home, told.made, plan), plan, told.fresh("said"))
    assert status == 0 and broken(home) == [], (words, broken(home))
    trace = read_trace(told.directory / "trace")
    return Medium(home.root, trace, pristine.root), trace


def states(medium: Medium, seed: int, known: set[bytes], begin: int = 0) -> Iterator[tuple[str, int, State]]:
    """(name, how many acts came before, state) of every state from ``begin`` on that is not ``known`` yet."""
    for length in medium.moments(begin):
        for name, state in _after(medium, length, random.Random(f"{seed} {length}")):
            # Nobody reads run/ after a power cut: it holds locks.
            state = {path: what for path, what in state.items() if not path.startswith("run/")}
            owed = sum(mark <= length for mark in medium.marks)
            text = repr((owed, sorted(state.items(), key=str))).encode()
            identity = hashlib.sha256(CHANCE.sub(b"", text)).digest()
            if identity not in known:
                known.add(identity)
                yield f"{name} after act {length}", length, state


def _after(medium: Medium, length: int, generator: random.Random) -> Iterator[tuple[str, State]]:
    unsure = medium.unsure(length)
    yield "all unsynced lost", medium.state(length, unsure)
    yield "nothing lost", medium.state(length)
    for change in unsure:
        yield f"act {change.index} lost", medium.state(length, {change})
        yield f"all but act {change.index} unsynced lost", medium.state(length, set(unsure) - {change})
    writes = [change for change in unsure if change.data]
    if writes:
        yield "last write torn", medium.state(length, torn=writes[-1])
        yield "last write torn, all else unsynced lost", medium.state(length, set(unsure) - {writes[-1]}, writes[-1])
    for number in range(RANDOM_STATES if len(unsure) > 2 else 0):
        lost: set[Change] = {change for change in unsure if generator.random() < 0.5}
        yield f"random loss {number}", medium.state(length, lost)


def lost_writes(told: Campaign) -> str:
    medium, trace = recorded(told)
    every = list(states(medium, told.seed, set()))
    for name, length, state in told.chosen(every):
        told.found(name, gone_on_with(told, medium, trace, length, state))
    return f"states of {len(every)} after {medium.length} acts checked"


def gone_on_with(told: Campaign, medium: Medium, trace: Trace, length: int, state: State) -> list[str]:
    """What a start after the power cut finds broken, or breaks."""
    home = Home(told.fresh("home"))
    lay_out(state, home.root)
    seen = half_visible(home)
    # A client that had its answer does not ask again.
    submits = "submitted" not in acknowledged(medium, trace, length)
    status, words = forked(partial(turn, home, told.made, plan := Plan(), submits), plan, told.fresh("said"))
    return [*seen, *([words] if status else []), *broken(home)]


def order(told: Campaign) -> str:
    """Of every acknowledgement in an undisturbed turn: all it stands for was synced before."""
    medium, trace = recorded(told)
    told.found("an undisturbed turn", lost_at_acknowledgement(medium, trace))
    return "turn read for its order"


def killed_then_cut(told: Campaign) -> str:
    """A killed process leaves lines and names that are not synced; its successor believes and acknowledges them."""
    every, known, checked = points(told), set[bytes](), 0
    pristine = prepare(told.fresh("pristine"))
    for point, name in told.chosen(every):
        home = as_dropped(told, pristine)
        path = told.fresh("trace")
        dying, again = Die(path, point=point), Plan(path)
        status, _ = forked(partial(turn, home, told.made, dying), dying, told.fresh("said"))
        assert status == KILLED, status
        begin = len(read_trace(path))
        status, words = forked(partial(turn, home, told.made, again), again, told.fresh("said"))
        trace = read_trace(path)
        medium = Medium(home.root, trace, pristine.root)
        told.found(name, [*([words] if status else []), *lost_at_acknowledgement(medium, trace)])
        # Of the many states a sample takes a still smaller part.
        for state_name, length, state in told.chosen(list(states(medium, told.seed, known, begin)), told.share**2):
            checked += 1
            broken_then = gone_on_with(told, medium, trace, length, state)
            told.violations += [f"{name}; {state_name}: {what}" for what in broken_then]
    return f"crash points of {len(every)}, each followed by a start and a power cut ({checked} states), covered"


if __name__ == "__main__":
    campaigns = {"states": lost_writes, "order": order, "killed": killed_then_cut}
    what = sys.argv.pop()
    leave(run(f"lost writes, {what}", campaigns[what]))

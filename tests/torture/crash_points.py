"""Kills the process at every act on the disk of a turn, starts it again, and counts. See test_crash_points.py."""

from __future__ import annotations

from functools import partial

from acts import MOMENTS, WRITES, Die, Plan, changes
from campaign import KILLED, Campaign, calls_of_a_turn, forked, leave, run
from model import broken, half_visible
from turn import prepare, turn


def points(told: Campaign) -> list[tuple[int, str]]:
    """(point, its name) of a turn that is left alone. Only a write has a middle."""
    names = [name for name in calls_of_a_turn(told, Plan()) if changes(name)]
    return [
        (len(MOMENTS) * number + index, f"{moment} act {number}, {name}")
        for number, name in enumerate(names)
        for index, moment in enumerate(MOMENTS)
        if moment != "within" or name in WRITES
    ]


def crash_points(told: Campaign) -> str:
    every = points(told)
    for point, name in told.chosen(every):
        home = prepare(told.fresh("home"))
        dying = Die(point=point)
        status, words = forked(partial(turn, home, told.made, dying), dying, told.fresh("said"))
        if status != KILLED:
            told.found(name, [f"it was not reached: exit status {status} {words}"])
            continue
        seen = half_visible(home)
        again = Plan()
        status, words = forked(partial(turn, home, told.made, again), again, told.fresh("said"))
        told.found(name, [*seen, *([words] if status else []), *broken(home)])
    return f"crash points of {len(every)} covered"


if __name__ == "__main__":
    leave(run("killed", crash_points))

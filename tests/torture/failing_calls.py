"""Lets every call to the operating system of a turn fail once, in every way it can. See test_failing_calls.py."""

from __future__ import annotations

from functools import partial

from acknowledged import lost_at_acknowledgement
from acts import Fail, Plan, suits
from campaign import Campaign, calls_of_a_turn, forked, leave, read_trace, run
from medium import Medium
from model import broken
from turn import failing_turn, prepare, turn

HOWS = ("EIO", "ENOSPC", "EMFILE", "short")


def failing_calls(told: Campaign) -> str:
    names = calls_of_a_turn(told, Fail())
    every = [
        (number, name, how, lasting)
        for number, name in enumerate(names)
        for how in HOWS
        if suits(name, how)
        for lasting in ((False, True) if how in ("ENOSPC", "EIO") else (False,))
    ]
    for number, name, how, lasting in told.chosen(every):
        where = f"call {number}, {name}, {how}{' from there on' if lasting else ''}"
        told.found(where, one_failure(told, Fail(told.fresh("trace"), nth=number, how=how, lasting=lasting)))
    return f"failing calls of {len(every)} covered"


def one_failure(told: Campaign, failing: Fail) -> list[str]:
    """A turn in which a call fails, and is then gone on with; what it broke."""
    home, pristine = prepare(told.fresh("home")), prepare(told.fresh("pristine"))
    status, words = forked(partial(failing_turn, home, told.made, failing), failing, told.fresh("said"))
    found = [words] if status else []
    assert failing.trace is not None
    trace = read_trace(failing.trace)
    found += lost_at_acknowledgement(Medium(home.root, trace, pristine.root), trace)
    found += broken(home, resting=False)
    # What a failure left half-made goes at the next start, which finds nothing else to do.
    again = Plan()
    status, words = forked(partial(turn, home, told.made, again), again, told.fresh("said"))
    return [*found, *([words] if status else []), *broken(home)]


if __name__ == "__main__":
    leave(run("failed", failing_calls))

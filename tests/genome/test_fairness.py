"""Whose turn it is to train."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genome.fairness import Waiting, next_job


@given(st.lists(st.lists(st.integers(1, 3), max_size=30), min_size=2, max_size=5), st.integers(1, 3))
def test_no_persona_starves_another(queues: list[list[int]], cap: int) -> None:
    """However long one's queue is, a persona with a job waits for one start of each other at most, at any cap."""
    waiting = [Waiting(f"{number:03d}-{persona}", str(persona), str(number))
               for persona, queue in enumerate(queues) for number, _ in enumerate(queue)]  # fmt: skip
    ends = {f"{number:03d}-{persona}": length
            for persona, queue in enumerate(queues) for number, length in enumerate(queue)}  # fmt: skip
    running: dict[str, tuple[int, Waiting]] = {}
    served: dict[str, float] = {}
    passed_over: dict[str, list[str]] = {str(persona): [] for persona in range(len(queues))}
    for now in range(1, 400):
        running = {job: (end, of) for job, (end, of) in running.items() if end > now}
        while len(running) < cap:
            busy = [(of.persona, of.domain) for _, of in running.values()]
            chosen = next_job(waiting, busy, served)
            if chosen is None:
                break
            waiting.remove(chosen)
            served[chosen.persona] = now + len(running) / 10
            running[chosen.job] = (now + ends[chosen.job], chosen)
            passed_over[chosen.persona] = []
            for persona in {job.persona for job in waiting} - {chosen.persona}:
                assert chosen.persona not in passed_over[persona]
                passed_over[persona].append(chosen.persona)
    assert not waiting and not running


def test_a_persona_is_served_oldest_first_and_a_domain_one_at_a_time() -> None:
    """A version goes on from the one before it."""
    jobs = [Waiting("1", "a", "x"), Waiting("2", "a", "x"), Waiting("3", "a", "y"), Waiting("4", "b", "x")]
    assert next_job(jobs, [], {"a": 1.0, "b": 2.0}) == jobs[0]
    assert next_job(jobs[1:], [("a", "x")], {"a": 1.0, "b": 2.0}) == jobs[2]
    assert next_job(jobs[1:], [("a", "x")], {"a": 3.0, "b": 2.0}) == jobs[3]
    assert next_job(jobs[:1], [("a", "x")], {}) is None


def test_what_a_crashed_daemon_left_running_goes_before() -> None:
    """Else its process and the next would be one too many."""
    jobs = [Waiting("1", "a", "x"), Waiting("2", "b", "x", left_running=True)]
    assert next_job(jobs, [], {"a": 1.0, "b": 2.0}) == jobs[1]

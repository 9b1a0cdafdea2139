"""When a run measures itself, and what it keeps."""

from __future__ import annotations

from daemon.trainers import early_stop
from daemon.trainers.early_stop import Watch


def measured(*losses: float) -> Watch:
    watch = Watch()
    for number, loss in enumerate(losses, 1):
        watch = watch.after(10 * number, loss)
    return watch


def test_the_lowest_is_the_best_and_the_first_of_equals() -> None:
    """An equal loss later is no reason to have gone on."""
    assert measured(3.0, 2.0, 2.5, 2.0) == Watch(step=40, loss=2.0, best=2.0, best_step=20, since_best=2)


def test_patience_is_measurements_in_a_row_without_a_better_one() -> None:
    """A better one begins the count anew; patience 0 never ends."""
    assert not measured(3.0, 3.1).over(2)
    assert measured(3.0, 3.1, 3.2).over(2)
    assert not measured(3.0, 3.1, 2.9, 3.0).over(2)
    assert not measured(*range(1, 100)).over(0)


def test_it_is_measured_once_an_epoch_and_at_the_end() -> None:
    """A long epoch is measured within; the last step always is."""
    assert [step for step in range(1, 65) if early_stop.due(step, 64, 29)] == [29, 58, 64]
    assert [step for step in range(1, 201) if early_stop.due(step, 200, 1000)] == [50, 100, 150, 200]
    assert [step for step in range(1, 4) if early_stop.due(step, 3, 1)] == [1, 2, 3]

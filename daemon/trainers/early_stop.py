"""When a run measures its validation loss, which measurement is the best, and when it has learned all it can.

The loss is that of examples that are never trained on. A run keeps the weights of its best measurement and ends with
them (early stopping; Prechelt, "Early Stopping — but when?", 1998, the criterion UP). Pure functions of what was
measured; the state lies in each checkpoint, so a run that goes on decides as it would have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_STEPS = 50
"""Between two measurements, where an epoch is longer."""


@dataclass(frozen=True)
class Watch:
    """What was measured so far."""

    step: int = 0
    """Steps that had been made at the newest measurement."""
    loss: float | None = None
    """Of the newest, in nats a token."""
    best: float | None = None
    best_step: int = 0
    """Steps that had been made when that was measured."""
    since_best: int = 0
    """Measurements that were no better."""

    def after(self, step: int, loss: float) -> Watch:
        """With one measurement more, made after ``step`` steps."""
        if self.best is None or loss < self.best:
            return Watch(step, loss, loss, step)
        return replace(self, step=step, loss=loss, since_best=self.since_best + 1)

    def over(self, patience: int) -> bool:
        """Whether ``patience`` measurements in a row were no better than the best. 0: never."""
        return 0 < patience <= self.since_best


def due(step: int, steps: int, steps_an_epoch: int) -> bool:
    """Whether to measure after ``step`` of ``steps``: once an epoch, at least every `MOST_STEPS`, and at the end."""
    return step == steps or step % max(1, min(steps_an_epoch, MOST_STEPS)) == 0

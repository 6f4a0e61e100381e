"""How long a run's steps take, from which the time that is left is told."""

from __future__ import annotations

import time

from ..display import Readable


class Pace(Readable):
    """The time since a run began, which is divided among its steps."""

    def __init__(self) -> None:
        self.began, self.steps = time.monotonic(), 0

    def of_step(self) -> float:
        """Return how many seconds a step takes, after each step.

        The first one counts only until the second is done: what it compiles isn't compiled again.
        """
        seconds = time.monotonic() - self.began
        self.steps += 1
        if self.steps == 1:
            self.began += seconds
        return seconds / max(1, self.steps - 1)

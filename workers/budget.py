"""When a search has spent what it may: wall clock and GPU-hours (the number of trials is the run's to count)."""

from __future__ import annotations

import time
from collections.abc import Callable

from search.spec import SearchSpec


class Budget:
    """Hours since the search's first start, and GPU-hours of its trials.

    elapsed: seconds that have passed since the search first started (attempts before this one included).
    """

    def __init__(self, spec: SearchSpec, elapsed: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._hours = spec.budget.hours
        self._gpu_hours = spec.budget.gpu_hours
        self._gpus = spec.resources.gpus
        self._clock = clock
        self._started = clock() - elapsed
        self._gpu_seconds = 0.0

    def spend(self, seconds: float) -> None:
        """A trial has run for `seconds`."""
        self._gpu_seconds += seconds * self._gpus

    @property
    def spent(self) -> bool:
        """Whether no further trial may start; those that run are allowed to finish."""
        if self._hours is not None and self._clock() - self._started >= self._hours * 3600:
            return True
        return self._gpu_hours is not None and self._gpu_seconds >= self._gpu_hours * 3600

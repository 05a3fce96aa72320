"""When a search has spent what it may: hours of drivers at work, and GPU-hours of its trials (how many trials there
are is the run's to count)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from search.spec import SearchSpec
from workers.attempts import Attempts


class ActiveTime:
    """How long drivers have worked on a search: `before` seconds by earlier ones, and since the first trial of this
    one has begun.

    A search that is paused or queued, or whose driver waits for a first slot, grows no older.
    """

    def __init__(self, before: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before = before
        self._began: float | None = None

    def begin(self) -> None:
        """A trial has its slot; nothing changes when one had before."""
        if self._began is None:
            self._began = self._clock()

    @property
    def seconds(self) -> float:
        return self._before if self._began is None else self._before + self._clock() - self._began


class Budget:
    """What a search may still spend. GPU-hours count whenever a trial holds its GPUs, whatever comes of it."""

    def __init__(self, spec: SearchSpec, active: ActiveTime, attempts: Attempts) -> None:
        self._hours = spec.budget.hours
        self._gpu_hours = spec.budget.gpu_hours
        self._gpus = spec.resources.gpus
        self._active = active
        self._attempts = attempts

    @property
    def spent(self) -> bool:
        """Whether no further trial may start; those that run are allowed to finish."""
        return self.seconds_left(slots=1) <= 0

    def seconds_left(self, slots: int) -> float:
        """Seconds until it is spent with `slots` trials at once; infinite without limits."""
        left = math.inf if self._hours is None else self._hours * 3600 - self._active.seconds
        if self._gpu_hours is not None and self._gpus:
            slot_seconds = self._gpu_hours * 3600 / self._gpus - self._attempts.total
            left = min(left, slot_seconds / slots)
        return left

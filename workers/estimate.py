"""How long the rest of a search will take: equal trials put on slots one after the other, until the budget is spent."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Trials of one length. waits: whether they start only when all before them have ended."""

    count: int
    seconds: float
    waits: bool = False


class Pace:
    """How long an epoch takes, from the trials that were trained to an end, early or not."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._epochs = 0

    def measure(self, seconds: float, epochs: int) -> None:
        """Takes in a trial. seconds: for which it has held its slot; 0 for one that was not trained here."""
        if seconds > 0:
            self._seconds += seconds
            self._epochs += epochs

    @property
    def seconds_per_epoch(self) -> float | None:
        """None before the first."""
        return self._seconds / self._epochs if self._epochs else None


def time_left(running: Sequence[float], batches: Sequence[Batch], slots: int, until: float = math.inf) -> float:
    """Seconds until the last trial ends.

    running: seconds left of those that run now, which may be more than `slots` for a while. until: no trial starts
    after so many seconds; those that run then come to their end.
    """
    ends = sorted(running)
    last = ends[-1] if ends else 0.0
    free = np.zeros(slots)
    kept = ends[-slots:]  # of more than `slots`, the first to end are not replaced
    free[slots - len(kept) :] = kept
    for batch in batches:
        if batch.waits:
            free = np.full(slots, max(last, float(free.max())))
        free = _placed(free, batch, until)
        last = max(last, float(free.max()))
    return last


def _placed(free: Times, batch: Batch, until: float) -> Times:
    """When each slot is free after the batch; the earliest free slot takes the next trial. free: the same before."""
    count = min(batch.count, _starts_before(free, batch.seconds, until))
    if count <= 0 or batch.seconds <= 0:
        return free
    low, high = float(free.min()), float(free.max()) + batch.seconds * (count / len(free) + 1)
    for _ in range(64):  # the latest moment before which no more than `count` start
        middle = (low + high) / 2
        low, high = (middle, high) if _starts_before(free, batch.seconds, middle) <= count else (low, middle)
    started = _starts(free, batch.seconds, low)
    heap = list(free + started * batch.seconds)
    heapq.heapify(heap)
    for _ in range(int(count - started.sum())):
        heapq.heapreplace(heap, heap[0] + batch.seconds)
    return np.asarray(heap)


def _starts_before(free: Times, seconds: float, moment: float) -> float:
    return float(_starts(free, seconds, moment).sum())


def _starts(free: Times, seconds: float, moment: float) -> Times:
    """How many trials start on each slot before `moment` if it takes one after the other."""
    starts: Times = np.ceil(np.maximum(moment - free, 0.0) / max(seconds, 1e-9))
    return starts

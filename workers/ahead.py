"""Trials whose rows are written while all slots are busy, so that a slot that becomes free need not wait for it.

Worth it only where trials are short: until it begins, such a trial has a row that says "running", and no other search
may train its evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from db.evaluations import Claim
from workers.orders import Order

Started = tuple[Order, Claim]

SHORT_SECONDS = 5.0
"""Writing a row costs longer trials nothing that could be noticed."""
HURRIED_SECONDS = 0.5
"""Of trials that are shorter, each slot has two ahead: the next one may end before a row is committed."""
LOOK_SECONDS = 1.0


def wanted(slots: int, trial_seconds: float | None) -> int:
    """How many trials to have ahead. trial_seconds: what a trial takes, None while nobody knows."""
    if trial_seconds is None or trial_seconds > SHORT_SECONDS:
        return 0
    return 2 * slots if trial_seconds < HURRIED_SECONDS else slots


class Ahead:
    """A queue of them. check: raises what keeps rows from being written."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._queue: deque[Future[Started]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, started: Future[Started]) -> None:
        self._queue.append(started)

    def next(self) -> Started:
        """The first of them, once its row is committed. IndexError when there is none."""
        future = self._queue.popleft()
        while True:
            try:
                return future.result(LOOK_SECONDS)
            except TimeoutError:
                self._check()

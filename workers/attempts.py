"""What the trials of a search are doing just now and how long they have held their slots: the driver's stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

LATE_SECONDS = 15.0
"""Added to the limit of silence: a process that hangs ends itself first, if it can, and leaves a trace of why."""
DEAF_SECONDS = 5.0
"""A driver that has not looked for this long may have reports waiting: its trials are not to blame."""


@dataclass
class Attempt:
    """One attempt at a trial. began, heard: of the clock, at its start and at its last report.

    epoch: the last one reported; saved: the last one whose checkpoint is in the store; 0 when there is none.
    """

    began: float
    heard: float
    epoch: int = 0
    saved: int = 0


class Attempts:
    """The attempts that run now, by trial, and the slot time of all that there have been."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live: dict[str, Attempt] = {}
        self._before: dict[str, float] = {}
        self._ended_total = 0.0
        self._began_total = 0.0
        self._looked = clock()

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._live

    def __len__(self) -> int:
        return len(self._live)

    def restore(self, trial_id: str, busy_seconds: float) -> None:
        """What earlier drivers have counted for a trial."""
        self._before[trial_id] = busy_seconds
        self._ended_total += busy_seconds

    def begin(self, trial_id: str, epochs_done: int = 0) -> None:
        """The trial has its slot from now on; nothing changes when it has one already."""
        if trial_id not in self._live:
            now = self._clock()
            self._live[trial_id] = Attempt(now, now, epochs_done, epochs_done)
            self._began_total += now

    def hear(self, trial_id: str, epoch: int | None = None, saved: int | None = None) -> None:
        """The trial has reported something: the end of an epoch, whose checkpoint may be in the store."""
        attempt = self._live.get(trial_id)
        if attempt is None:
            return
        attempt.heard = self._clock()
        attempt.epoch = attempt.epoch if epoch is None else epoch
        attempt.saved = attempt.saved if saved is None else saved

    def is_saved(self, trial_id: str) -> bool:
        """Whether the checkpoint of the last epoch reported is in the store."""
        attempt = self._live.get(trial_id)
        return attempt is not None and 0 < attempt.epoch == attempt.saved

    def end(self, trial_id: str) -> Attempt | None:
        """The trial's slot is free again. What it had been doing, or None when it had no slot."""
        attempt = self._live.pop(trial_id, None)
        if attempt is not None:
            spent = self._clock() - attempt.began
            self._before[trial_id] = self._before.get(trial_id, 0.0) + spent
            self._ended_total += spent
            self._began_total -= attempt.began
        return attempt

    def busy(self, trial_id: str) -> float:
        """Seconds for which the trial has held a slot, in all its attempts up to now."""
        attempt = self._live.get(trial_id)
        running = 0.0 if attempt is None else self._clock() - attempt.began
        return self._before.get(trial_id, 0.0) + running

    @property
    def total(self) -> float:
        """Seconds for which all trials have held slots, up to now."""
        return self._ended_total + len(self._live) * self._clock() - self._began_total

    def live(self) -> dict[str, Attempt]:
        """The attempts that run now, by trial."""
        return dict(self._live)

    def since_report(self, trial_id: str) -> float:
        """Seconds since the trial's last report, or since it began; 0 when it does not run."""
        attempt = self._live.get(trial_id)
        return 0.0 if attempt is None else self._clock() - attempt.heard

    def silent(self, limit: float) -> list[str]:
        """Trials that have told nothing for over `limit` seconds. To be called all the time: while the driver waits for
        something else, such as its database, nobody's silence counts."""
        now = self._clock()
        deaf, self._looked = now - self._looked, now
        if deaf > DEAF_SECONDS:
            for attempt in self._live.values():
                attempt.heard = min(now, attempt.heard + deaf)
        return [trial_id for trial_id, attempt in self._live.items() if now - attempt.heard > limit + LATE_SECONDS]

"""The interface of early stopping: it looks at explore trials at the ends of certain epochs, and ends those that are
not worth the rest of their training.

Call order: the driver makes one, restores what the database holds of the search's trials, then has every epoch of an
explore trial judged as it ends. What it says depends only on the values that it has been given, so a restart goes on
where it stopped. Controls, the baseline and confirmations are never judged, nor are results taken over from elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """How a trial stands at a rung when it gets there. rung: from 1. rank: non-dominated rank, 1 where no other trial
    dominates it. place: from 1, of the `size` trials that have got there. kept: how many of the best go on in any case.
    """

    stops: bool
    epoch: int
    rung: int
    rank: int
    place: int
    size: int
    kept: int


class EarlyStopping(ABC):
    """Judges a trial at most once at each of its epochs. Trials have ids; values are the objectives in their units."""

    @property
    @abstractmethod
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which trials are judged, rising, all before the last one."""

    @abstractmethod
    def judge(self, trial: str, epoch: int, values: tuple[float, ...]) -> Verdict | None:
        """Takes in what a trial has come to; None where it is not judged: between rungs, and where it was before.

        Values that are told again replace the earlier ones. Values that are not finite: ValueError.
        """

    @abstractmethod
    def restore(self, trial: str, epoch: int, values: tuple[float, ...], *, stopped: bool = False) -> None:
        """Takes in a trial that was judged at this epoch earlier. stopped: whether it went no further."""

    @abstractmethod
    def withdraw(self, trial: str) -> None:
        """Forgets a trial that has failed: what it promised keeps no other from going on."""

    @abstractmethod
    def epochs_left(self, done: int) -> float:
        """How many epochs a trial that has done so many may be expected to train still."""

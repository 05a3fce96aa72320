"""How a run ends before its budget and a trial before its last epoch, and what is said of trials left unfinished."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from search.strategies.early_stopping import Verdict
from workers.orders import Failure


class Stop(enum.Enum):
    """Why a run ends before its budget: the search's status afterwards."""

    CANCEL = "cancelled"
    PAUSE = "paused"
    HAND_BACK = "queued"

    @property
    def drains(self) -> bool:
        """Whether trials may end the epoch they are in, so that nothing of it is lost."""
        return self is not Stop.CANCEL


@dataclass(frozen=True)
class Limits:
    """Seconds. epoch: after which a trial that reports nothing counts as hung. drain: for trials to end the epoch they
    are in when the search is paused or handed back."""

    epoch: float = 3600.0
    drain: float = 20.0


def why_ended(stop: Stop | None, failure: Failure | None, saved: int) -> Failure:
    """What an unfinished trial says of its end. saved: its last epoch whose checkpoint is in the store, or 0."""
    if stop is not None and stop.drains:
        what = "Paused" if stop is Stop.PAUSE else "Its driver was stopped"
        after = f"after epoch {saved}: it goes on from there" if saved else "before an epoch was saved: it starts again"
        return Failure("paused", f"{what} {after}.")
    if stop is None and failure is not None:
        return Failure("cancelled", f"The search has failed: {failure.message}")
    return Failure("cancelled", f"The search was {stop.value if stop else 'ended'}.")


def why_stopped(verdict: Verdict, epochs: int) -> Failure:
    """What a trial says that early stopping has ended. epochs: that it would have had."""
    others = (
        f"the best {verdict.kept} and what no other dominates go on"
        if verdict.kept
        else ("only what no other dominates goes on")
    )
    return Failure(
        "stopped",
        f"Stopped after epoch {verdict.epoch} of {epochs}: non-dominated rank {verdict.rank}, place {verdict.place} of "
        f"{verdict.size} at rung {verdict.rung}, where {others}.",
    )

"""What the driver hands to a trial process, and what comes back: plain data, JSON on both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from search.architecture import Architecture
from search.space import Genotype
from workers.reports import storable

Phase = Literal["controls", "explore", "confirm"]
Role = Literal["baseline", "control", "explore", "confirm"]
FailureKind = Literal[
    "nan_loss", "out_of_memory", "timeout", "killed", "dataset", "changed_data", "weights", "storage", "error"
]
"""`changed_data` is never stored: where nothing has come of a search yet it is planned anew, else it is `dataset`."""
EndKind = Literal["cancelled", "paused", "stopped"]
"""Of a trial that did not fail but was ended: by a command, because its search ended or changed hands, or early."""

RETRIES: dict[str, int] = {"killed": 2, "timeout": 1, "storage": 1}
"""How often a trial is started again after failures of that kind; others are final. Of `killed`, those count since it
last saved more epochs: a long trial on nodes that come and go is killed often, and gets on all the same."""


@dataclass(frozen=True)
class Deaths:
    """Deaths of a trial's process. in_a_row: since it last saved more epochs. saved: the most at any death."""

    in_a_row: int = 0
    saved: int = 0

    def another(self, saved: int) -> Deaths:
        """With one more, when `saved` epochs were in the store."""
        return Deaths(1 if saved > self.saved else self.in_a_row + 1, max(saved, self.saved))

    def to_json(self) -> dict[str, int]:
        return {"in_a_row": self.in_a_row, "saved": self.saved}


@dataclass(frozen=True)
class Order:
    """One trial to run. trial_id, number: of its row, set once the row is there.

    note: how the strategy came to it. evaluation_key: SHA-256 of everything that decides the result.
    failures: after which it was started again, by kind; deaths: those of kind `killed`, as they count for its retries.
    epochs_done: reported by earlier attempts.
    """

    phase: Phase
    role: Role
    architecture: Architecture
    seed: int
    epochs: int
    evaluation_key: str
    genotype: Genotype | None = None
    note: dict[str, Any] = field(default_factory=dict)
    trial_id: str = ""
    number: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    deaths: Deaths = Deaths()
    epochs_done: int = 0

    @property
    def retries(self) -> int:
        return sum(self.failures.values())

    def started(self, trial_id: str, number: int) -> Order:
        return replace(self, trial_id=trial_id, number=number)

    def may_follow(self, failure: Failure, saved: int) -> bool:
        """Whether the trial may be started again after this failure, with `saved` epochs in the store."""
        if failure.kind == "killed":
            return self.deaths.another(saved).in_a_row <= RETRIES["killed"]
        return self.failures.get(failure.kind, 0) < RETRIES.get(failure.kind, 0)

    def after(self, failure: Failure, saved: int) -> Order:
        """The order to start it again."""
        counted = {**self.failures, failure.kind: self.failures.get(failure.kind, 0) + 1}
        deaths = self.deaths.another(saved) if failure.kind == "killed" else self.deaths
        return replace(self, failures=counted, deaths=deaths, epochs_done=saved)


@dataclass(frozen=True)
class Failure:
    """Why a trial gave no result."""

    kind: FailureKind | EndKind
    message: str
    traceback: str = ""

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "message": storable(self.message), "traceback": storable(self.traceback)}


@dataclass(frozen=True)
class Result:
    """What a finished trial measured. metrics: finite numbers by metric name; seconds: training and evaluation."""

    metrics: dict[str, float]
    epochs: int
    seconds: float
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "environment": self.environment,
        }

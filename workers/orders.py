"""What the driver hands to a trial process, and what comes back: plain data, JSON on both ways."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from search.architecture import Architecture
from search.space import Genotype

Phase = Literal["controls", "explore", "confirm"]
Role = Literal["baseline", "control", "explore", "confirm"]
FailureKind = Literal["nan_loss", "out_of_memory", "killed", "dataset", "weights", "error"]

RETRIES: dict[str, int] = {"killed": 2}
"""How often a trial is started again after a failure of that kind; others are final."""


@dataclass(frozen=True)
class Order:
    """One trial to run. trial_id, number: of its row, set once the row is there.

    note: how the strategy came to it. evaluation_key: SHA-256 of everything that decides the result.
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
    retries: int = 0

    def started(self, trial_id: str, number: int) -> Order:
        return replace(self, trial_id=trial_id, number=number)

    def retried(self) -> Order:
        return replace(self, retries=self.retries + 1)


@dataclass(frozen=True)
class Failure:
    """Why a trial gave no result."""

    kind: FailureKind
    message: str
    traceback: str = ""

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "message": _storable(self.message), "traceback": _storable(self.traceback)}


def _storable(text: str) -> str:
    """The words of an exception, which may hold anything, without what a database refuses (NUL, lone surrogates)."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


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

"""What the API says about trials and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from db.models import Architecture, Artifact, Epoch, Event, Trial

BRIEF_ERROR = ("kind", "message")


class TrialOut(BaseModel):
    """A trial. Accuracies are fractions, `seconds` its duration, `macs` multiply-adds of one forward pass.

    architecture: backbone and placements {site: modules}. key: the architecture's. metrics: the metrics without a
    field of their own. reused_from: the trial whose result this is. busy_seconds: how long it has held a slot, failed
    attempts included. node: where it runs now. retries: how often it was started again after a failure; retried: by
    class of failure. error: why there is no result; of one that was stopped early, which keeps what it had come to by
    then, how it stood (kind `stopped`).
    """

    id: str
    search_id: str
    number: int
    phase: str
    role: str
    status: str
    label: str
    architecture: dict[str, Any] | None
    key: str
    seed: int
    epochs: int
    epochs_planned: int
    params: int | None
    macs: int | None
    top1: float | None
    top5: float | None
    loss: float | None
    test_top1: float | None
    latency_ms: float | None
    metrics: dict[str, Any]
    seconds: float | None
    busy_seconds: float
    node: str | None
    retries: int
    retried: dict[str, int] | None
    reused_from: str | None
    error: dict[str, Any] | None
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, trial: Trial, architecture: Architecture | None) -> TrialOut:
        return cls(**_fields(trial, architecture))


class TrialNote(BaseModel):
    """Something out of the ordinary: trial.resumed, trial.retried, checkpoint.failed, checkpoint.corrupt, data.slow,
    compile.failed, latency.other_device."""

    kind: str
    at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> TrialNote:
        return cls(kind=event.kind, at=event.at, data={k: v for k, v in event.data.items() if k != "trial_id"})


class TrialDetail(TrialOut):
    """A trial with where it came from and what it ran on; its error has the traceback. notes: oldest first."""

    proposal: dict[str, Any] | None
    environment: dict[str, Any] | None
    evaluation_key: str | None
    notes: list[TrialNote]

    @classmethod
    def told(cls, trial: Trial, architecture: Architecture | None, events: Sequence[Event]) -> TrialDetail:
        """The trial with the events about it."""
        fields = _fields(trial, architecture) | {"error": trial.error}
        names = ("proposal", "environment", "evaluation_key")
        notes = [TrialNote.of(event) for event in events]
        return cls(**fields, **{name: getattr(trial, name) for name in names}, notes=notes)


def _fields(trial: Trial, architecture: Architecture | None) -> dict[str, Any]:
    given = ("architecture", "key", "error")
    fields = {name: getattr(trial, name) for name in TrialOut.model_fields if name not in given}
    error = None if trial.error is None else {name: trial.error.get(name) for name in BRIEF_ERROR}
    document = None if architecture is None else architecture.document
    return fields | {"architecture": document, "key": trial.architecture_key, "error": error}


class TrialPage(BaseModel):
    items: list[TrialOut]
    next_cursor: str | None


class EpochOut(BaseModel):
    """One epoch, from 1. Losses in nat, accuracies as fractions, on the validation split unless named otherwise."""

    epoch: int
    train_loss: float | None
    val_loss: float | None
    top1: float | None
    top5: float | None
    lr: float | None
    seconds: float | None
    metrics: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, epoch: Epoch) -> EpochOut:
        return cls(**{name: getattr(epoch, name) for name in cls.model_fields})


class Epochs(BaseModel):
    items: list[EpochOut]


class ArtifactOut(BaseModel):
    """A file that a trial has left: what it is (`weights`), where it is in the store, its size and SHA-256."""

    id: str
    kind: str
    path: str
    bytes: int
    sha256: str
    created_at: datetime

    @classmethod
    def of(cls, artifact: Artifact) -> ArtifactOut:
        return cls(**{name: getattr(artifact, name) for name in cls.model_fields})


class Artifacts(BaseModel):
    items: list[ArtifactOut]

"""What the API says about a search."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from db.models import TRIAL_STATUSES, Search, Trial


class Best(BaseModel):
    """The succeeded trial of highest top1 so far (one seed: a difference below the noise is no winner)."""

    id: str
    number: int
    label: str
    role: str
    top1: float | None
    test_top1: float | None
    macs: int | None
    params: int | None


class SearchOut(BaseModel):
    """A search. counts: trials by status, and `total`. command: what was asked for and is not done yet.

    spec: the request with every default filled in. version: as in the ETag. last_event: the newest event's number.
    active_seconds: how long drivers have worked on it since a trial had its slot, which `budget.hours` limits;
    seconds_left: their estimate.
    """

    id: str
    name: str
    status: str
    phase: str | None
    command: str | None
    spec: dict[str, Any]
    spec_version: int
    counts: dict[str, int]
    best: Best | None
    hypervolume: float | None
    active_seconds: float
    seconds_left: float | None
    waiting_reason: str | None
    error: dict[str, Any] | None
    tags: list[str]
    owner: str | None
    priority: int
    attempt: int
    version: int
    last_event: int
    schedule_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, search: Search, counts: Mapping[str, int], best: Trial | None) -> SearchOut:
        return cls(
            id=search.id,
            name=search.name,
            status=search.status,
            phase=search.phase,
            command=search.command,
            spec=search.spec,
            spec_version=search.spec_version,
            counts={**dict.fromkeys(TRIAL_STATUSES, 0), **counts, "total": sum(counts.values())},
            best=None if best is None else _best(best),
            hypervolume=search.hypervolume,
            active_seconds=search.active_seconds,
            seconds_left=search.seconds_left if search.status == "running" else None,
            waiting_reason=search.waiting_reason,
            error=search.error,
            tags=search.tags,
            owner=search.owner,
            priority=search.priority,
            attempt=search.attempt,
            version=search.version,
            last_event=search.event_seq,
            schedule_id=search.schedule_id,
            created_at=search.created_at,
            started_at=search.started_at,
            finished_at=search.finished_at,
        )


def _best(trial: Trial) -> Best:
    return Best.model_validate(trial, from_attributes=True)


class SearchPage(BaseModel):
    items: list[SearchOut]
    next_cursor: str | None


class HypervolumeStep(BaseModel):
    """number: the trial that raised it. hypervolume: 0 to 1 from then on."""

    number: int
    hypervolume: float


class Progress(BaseModel):
    """How far a search is. planned: explore and confirm trials that it may start; done: those that have ended.

    seconds_left: the driver's estimate; null before the first result and while nobody works on it.
    hypervolume_steps: in the order of the trials' numbers, the closest left out where they are very many; empty until
    the search has its bounds.
    """

    id: str
    status: str
    phase: str | None
    counts: dict[str, int]
    planned: int
    done: int
    hypervolume: float | None
    hypervolume_steps: list[HypervolumeStep]
    elapsed_seconds: float | None
    seconds_left: float | None = Field(description="Seconds.")
    waiting_reason: str | None
    last_event: int

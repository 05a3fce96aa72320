"""What the API says about a schedule, its fires and its messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from db.models import Delivery, Fire, Schedule


class TargetOut(BaseModel):
    """Who is told of what. signed: whether a secret is kept for it; the secret itself is never shown."""

    channel: str
    target: str
    events: list[str]
    signed: bool


class ScheduleOut(BaseModel):
    """A schedule. version: as in the ETag. next_fire_at: the next time of its timetable; null while it is paused or
    over. starts_at: when that fire starts, later by its jitter. waiting: a fire waits for the search before to
    end, or for its data set."""

    id: str
    name: str
    cron: str
    zone: str
    meaning: str | None = Field(description="The expression in words.")
    template: dict[str, Any]
    overlap: str
    catch_up_seconds: int
    jitter_seconds: int
    start_at: datetime | None
    end_at: datetime | None
    enabled: bool
    priority: int
    keep: int | None
    owner: str | None
    notify: list[TargetOut]
    next_fire_at: datetime | None
    starts_at: datetime | None
    waiting: bool
    last_fire_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Schedule, meaning: str | None, waiting: bool) -> ScheduleOut:
        notify = [
            TargetOut(
                channel=each["channel"], target=each["target"], events=each["events"], signed=bool(each.get("secret"))
            )
            for each in row.notify
        ]
        names = set(cls.model_fields) - {"meaning", "notify", "next_fire_at", "starts_at", "waiting"}
        return cls(
            **{name: getattr(row, name) for name in names},
            meaning=meaning,
            notify=notify,
            next_fire_at=row.planned_at,
            starts_at=row.next_fire_at,
            waiting=waiting,
        )


class ComingFire(BaseModel):
    """at: UTC. local: the same on a clock in the schedule's zone; yours: in the zone that was asked for."""

    at: datetime
    local: str
    yours: str | None


class ScheduleDetail(ScheduleOut):
    """A schedule with its next fires; none while it is paused or over."""

    coming: list[ComingFire]


class SchedulePage(BaseModel):
    items: list[ScheduleOut]
    next_cursor: str | None


class FireOut(BaseModel):
    """What became of a time at which a schedule was due. status: fired, skipped, missed or failed; search_status: of
    the search that it started, null where there is none (any more)."""

    id: str
    schedule_id: str
    fire_at: datetime
    status: str
    reason: str | None
    search_id: str | None
    search_name: str | None = None
    search_status: str | None = None
    hypervolume: float | None = None
    verdict: str | None = Field(
        default=None, description="Whether the front moved: improved, worse, unchanged, unknown."
    )
    at: datetime

    @classmethod
    def of(cls, row: Fire) -> FireOut:
        names = ("id", "schedule_id", "fire_at", "status", "reason", "search_id", "at")
        return cls(**{name: getattr(row, name) for name in names})


class FirePage(BaseModel):
    items: list[FireOut]
    next_cursor: str | None


class DeliveryOut(BaseModel):
    """A message. status: pending, sent or failed; attempts so far; last_error: why the last one did not arrive."""

    id: str
    channel: str
    target: str
    event: str
    status: str
    attempts: int
    next_attempt_at: datetime | None
    last_error: str | None
    created_at: datetime
    sent_at: datetime | None

    @classmethod
    def of(cls, row: Delivery) -> DeliveryOut:
        names = set(cls.model_fields) - {"next_attempt_at"}
        pending = row.next_attempt_at if row.status == "pending" else None
        return cls(**{name: getattr(row, name) for name in names}, next_attempt_at=pending)


class DeliveryPage(BaseModel):
    items: list[DeliveryOut]
    next_cursor: str | None


class Tests(BaseModel):
    """The messages that were queued."""

    items: list[DeliveryOut]


class Expression(BaseModel):
    """An expression, checked. cron: as it would be kept; meaning: in words."""

    cron: str
    zone: str
    meaning: str
    fires: list[ComingFire]


class ComparisonOut(BaseModel):
    """A fire's search beside the one before it. final: the search has ended, so nothing of this changes any more.

    The rest of the fields are there when `comparable`; both hypervolumes are measured from one `reference_point`.
    moved: whether the fronts differ by more than what seeds explain, with the change of what several seeds have
    confirmed and its interval at 95 %. training_changed: the recipe, the initial weights or attune's training code
    differ, so the earlier front counts with what its architectures reach in the newer search, as on data that have
    changed. unmeasured: of the earlier front, without such a result.
    """

    fire_id: str
    search_id: str
    previous_search_id: str | None
    final: bool
    comparable: bool
    reason: str | None
    summary: str
    data_changed: bool | None = None
    training_changed: bool | None = None
    objectives: list[dict[str, Any]] = []
    reference_point: dict[str, float] | None = None
    hypervolume: dict[str, float] | None = None
    moved: dict[str, Any] | None = None
    gained: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    unmeasured: list[dict[str, Any]] = []
    entered: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []

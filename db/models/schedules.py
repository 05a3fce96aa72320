"""Repeated searches: schedules, what became of each fire, and the messages sent about it."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.clock import DatabaseTime, UtcDateTime
from db.models.base import DOCUMENT, Base, Born, Document, Name, PrimaryId, Time, Word, one_of

OVERLAPS = ("skip", "queue", "allow", "replace")
FIRE_STATUSES = ("fired", "missed", "skipped", "failed")
CHANNELS = ("webhook", "email")
DELIVERY_STATUSES = ("pending", "sent", "failed")


class Schedule(Base):
    """A search to repeat. `next_fire_at` is NULL while disabled or over, so that one index range finds what is due.

    `planned_at` is the time of the timetable that is to be dealt with next; a dispatcher acts at `next_fire_at`, which
    is later by the jitter, or while the fire waits for the search before. `notify` lists who is told of what.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        UniqueConstraint("name"),
        one_of("overlap", OVERLAPS),
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority_range"),
        CheckConstraint("catch_up_seconds >= 0 AND jitter_seconds >= 0", name="seconds_range"),
        CheckConstraint("enabled OR next_fire_at IS NULL", name="disabled_never_fires"),
        Index("ix_schedules_next_fire_at", "next_fire_at", "id"),
    )

    id: Mapped[PrimaryId]
    name: Mapped[Name]
    cron: Mapped[str] = mapped_column(String(200))
    zone: Mapped[str] = mapped_column(String(100))
    template: Mapped[Document]
    overlap: Mapped[Word] = mapped_column(default="skip")
    catch_up_seconds: Mapped[int] = mapped_column(default=3600)
    jitter_seconds: Mapped[int] = mapped_column(default=0)
    start_at: Mapped[Time | None]
    end_at: Mapped[Time | None]
    enabled: Mapped[bool] = mapped_column(default=True)
    priority: Mapped[int] = mapped_column(default=5)
    keep: Mapped[int | None]
    version: Mapped[int] = mapped_column(default=1)
    next_fire_at: Mapped[Time | None]
    planned_at: Mapped[Time | None]
    last_fire_at: Mapped[Time | None]
    owner: Mapped[Name | None]
    notify: Mapped[list[dict[str, Any]]] = mapped_column(DOCUMENT, default=list, server_default=text("'[]'"))
    created_at: Mapped[Born]
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())


_UNSETTLED = text("settled_at IS NULL AND search_id IS NOT NULL")


class Fire(Base):
    """One time at which a schedule was due, at most once per time.

    `settled_at` is when its search had ended, was compared with the one before and its messages were queued.
    """

    __tablename__ = "fires"
    __table_args__ = (
        UniqueConstraint("schedule_id", "fire_at"),
        one_of("status", FIRE_STATUSES),
        Index("ix_fires_search_id", "search_id"),
        Index("ix_fires_unsettled", "search_id", postgresql_where=_UNSETTLED, sqlite_where=_UNSETTLED),
    )

    id: Mapped[PrimaryId]
    schedule_id: Mapped[str] = mapped_column(String(36), ForeignKey("schedules.id", ondelete="CASCADE"))
    fire_at: Mapped[Time]
    status: Mapped[Word]
    search_id: Mapped[str | None] = mapped_column(String(36), ForeignKey("searches.id", ondelete="SET NULL"))
    reason: Mapped[str | None] = mapped_column(String(1000))
    comparison: Mapped[Document | None]
    settled_at: Mapped[Time | None]
    at: Mapped[Born]


_PENDING = text("status = 'pending'")


class Delivery(Base):
    """A message to send, kept until it is sent or given up."""

    __tablename__ = "deliveries"
    __table_args__ = (
        one_of("channel", CHANNELS),
        one_of("status", DELIVERY_STATUSES),
        Index("ix_deliveries_next_attempt_at", "next_attempt_at", postgresql_where=_PENDING, sqlite_where=_PENDING),
        Index("ix_deliveries_schedule_id", "schedule_id", "id"),
    )

    id: Mapped[PrimaryId]
    schedule_id: Mapped[str] = mapped_column(String(36), ForeignKey("schedules.id", ondelete="CASCADE"))
    channel: Mapped[Word]
    target: Mapped[str] = mapped_column(String(2000))
    event: Mapped[str] = mapped_column(String(50))
    payload: Mapped[Document]
    status: Mapped[Word] = mapped_column(default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
    last_error: Mapped[str | None] = mapped_column(String(1000))
    created_at: Mapped[Born]
    sent_at: Mapped[Time | None]

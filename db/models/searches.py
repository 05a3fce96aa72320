"""Searches and the events that tell their story."""

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import (
    SEARCHABLE,
    Base,
    Born,
    Document,
    Identifier,
    Name,
    PrimaryId,
    Time,
    Word,
    one_of,
)

SEARCH_STATUSES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
FINISHED_STATUSES = ("succeeded", "failed", "cancelled")
PHASES = ("controls", "explore", "confirm")
COMMANDS = ("pause", "resume", "cancel")

# Literal text, shared by the index and the claim: a planner uses a partial index only for the words it was made with.
# It says what is left out: words to look for would make SQLite take the index over the status, and sort.
CLAIMABLE = "status NOT IN ('paused', 'succeeded', 'failed', 'cancelled')"
FINISHED = "status IN ('succeeded', 'failed', 'cancelled')"
NOTABLE = "kind NOT IN ('trial.started', 'trial.epoch', 'trial.finished', 'search.progress')"
"""Of a search's events, the few that are no routine: what went wrong, was tried again or resumed, and was asked for."""


class Search(Base):
    """One request of a user and how far it has come.

    `attempt` is the fencing token: each claim raises it, and whoever writes for the search names the one it holds.
    `deaths` counts drivers that have died since the search last made progress.
    `driver` names the process at work ("host:pid:start time"), so that another dispatcher of its host can watch it;
    `first_beat_at` is when it first renewed the attempt's lease itself, NULL while it starts.
    `active_seconds` is the time that drivers have worked on it since a trial had its slot, which `budget.hours` limits;
    `seconds_left` the driver's estimate of the time to the end.
    `command` is what the user has asked for and the driver has not done yet. `version` is the ETag.
    `best_trial_id` has no foreign key: trials point at searches, and a trial only goes when its search does.
    """

    __tablename__ = "searches"
    __table_args__ = (
        one_of("status", SEARCH_STATUSES),
        one_of("phase", PHASES),
        one_of("command", COMMANDS),
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority_range"),
        CheckConstraint("quota >= 0", name="quota_range"),
        CheckConstraint(f"({FINISHED}) = (finished_at IS NOT NULL)", name="finished_at_when_finished"),
        CheckConstraint("status <> 'running' OR lease_expires_at IS NOT NULL", name="running_has_lease"),
        Index("ix_searches_claimable", text("priority DESC"), "created_at", "id", postgresql_where=text(CLAIMABLE),
              sqlite_where=text(CLAIMABLE)),
        Index("ix_searches_status", "status", "id"),
        Index("ix_searches_name", "name", "id"),
        Index("ix_searches_created_at", "created_at", "id"),
        Index("ix_searches_schedule_id", "schedule_id", "fire_at"),
    )  # fmt: skip

    id: Mapped[PrimaryId]
    name: Mapped[Name]
    status: Mapped[Word] = mapped_column(default="queued")
    phase: Mapped[Word | None]
    spec: Mapped[Document]
    spec_version: Mapped[int]
    owner: Mapped[Name | None]
    tags: Mapped[list[str]] = mapped_column(SEARCHABLE, default=list)
    priority: Mapped[int] = mapped_column(default=5)
    command: Mapped[Word | None]
    waiting_reason: Mapped[str | None] = mapped_column(String(1000))
    bounds: Mapped[Document | None]
    hypervolume: Mapped[float | None]
    best_trial_id: Mapped[Identifier | None]
    error: Mapped[Document | None]
    version: Mapped[int] = mapped_column(default=1)
    event_seq: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[Name | None]
    lease_expires_at: Mapped[Time | None]
    heartbeat_at: Mapped[Time | None]
    quota: Mapped[int] = mapped_column(default=1)
    driver: Mapped[str | None] = mapped_column(String(200))
    first_beat_at: Mapped[Time | None]
    active_seconds: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    seconds_left: Mapped[float | None]
    schedule_id: Mapped[str | None] = mapped_column(String(36), ForeignKey("schedules.id", ondelete="SET NULL"))
    fire_at: Mapped[Time | None]
    created_at: Mapped[Born]
    started_at: Mapped[Time | None]
    finished_at: Mapped[Time | None]

    @property
    def finished(self) -> bool:
        """Whether the search has ended for good."""
        return self.status in FINISHED_STATUSES


class Event(Base):
    """Something a user would want to see. `seq` counts per search from 1 in the order of the commits."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("search_id", "seq"),
        Index("ix_events_notable", "kind", "search_id", "seq", postgresql_where=text(NOTABLE),
              sqlite_where=text(NOTABLE)),
    )  # fmt: skip

    id: Mapped[PrimaryId]
    search_id: Mapped[str] = mapped_column(String(36), ForeignKey("searches.id", ondelete="CASCADE"))
    seq: Mapped[int]
    kind: Mapped[str] = mapped_column(String(50))
    data: Mapped[Document] = mapped_column(default=dict)
    at: Mapped[Born]

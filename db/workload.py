"""Who runs what just now, and what waits: reads for whoever looks at the cluster. Light rows, bounded in number."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row, Select, func, select, text
from sqlalchemy.orm import Session

from db.clock import DatabaseTime
from db.models import CLAIMABLE, Search, Trial

S = TypeVar("S", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True)
class RunningTrial:
    """node: the Ray node it runs on; None before it is known. retries: failed attempts so far."""

    id: str
    search_id: str
    number: int
    label: str
    node: str | None
    epochs: int
    epochs_planned: int
    retries: int
    started_at: datetime


@dataclass(frozen=True)
class RunningSearch:
    """owner: the dispatcher that claimed it. driver: the process at work. expired: whether its lease has run out."""

    id: str
    name: str
    attempt: int
    owner: str
    driver: str | None
    quota: int
    priority: int
    seconds_left: float | None
    heartbeat_at: datetime | None
    expired: bool


@dataclass(frozen=True)
class QueuedSearch:
    """reason: why it cannot start now, when it could not start even if slots were free."""

    id: str
    name: str
    priority: int
    reason: str | None
    created_at: datetime


def running_trials(session: Session, *, limit: int) -> list[RunningTrial]:
    """Trials of running searches that run, the longest first."""
    columns = (
        Trial.id, Trial.search_id, Trial.number, Trial.label, Trial.node, Trial.epochs, Trial.epochs_planned,
        Trial.retries, Trial.started_at,
    )  # fmt: skip
    statement = _of_running(select(*columns)).order_by(Trial.started_at, Trial.id).limit(limit)
    return [RunningTrial(*row) for row in session.execute(statement)]


def running_by_node(session: Session) -> dict[str | None, int]:
    """How many trials run on each node; None: on one that is not known yet."""
    statement = _of_running(select(Trial.node, func.count())).group_by(Trial.node)
    return dict(session.execute(statement).all())


def running_searches(session: Session) -> list[RunningSearch]:
    """Searches that are running, oldest first: at most as many as there are slots."""
    columns = (
        Search.id, Search.name, Search.attempt, Search.lease_owner, Search.driver, Search.quota, Search.priority,
        Search.seconds_left, Search.heartbeat_at, (Search.lease_expires_at <= DatabaseTime()).label("expired"),
    )  # fmt: skip
    statement = select(*columns).where(Search.status == "running").order_by(Search.created_at, Search.id)
    return [_running(row) for row in session.execute(statement)]


def queued_searches(session: Session, *, limit: int) -> list[QueuedSearch]:
    """What waits for a driver, in the order in which it is claimed."""
    columns = (Search.id, Search.name, Search.priority, Search.waiting_reason, Search.created_at)
    # not "status = 'queued'": so SQLite walks the index of the queue instead of sorting
    statement = select(*columns).where(text(CLAIMABLE), Search.status != "running")
    ordered = statement.order_by(Search.priority.desc(), Search.created_at, Search.id).limit(limit)
    return [QueuedSearch(*row) for row in session.execute(ordered)]


def _of_running(statement: S) -> S:
    # by way of the few searches that run: trials have no index by status alone
    joined = statement.join(Search, Search.id == Trial.search_id)
    return joined.where(Search.status == "running", Trial.status == "running")


def _running(row: Row[*tuple[Any, ...]]) -> RunningSearch:
    values = row._asdict()
    owner = values.pop("lease_owner") or ""
    return RunningSearch(**{**values, "owner": owner, "expired": bool(values["expired"])})

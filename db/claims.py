"""Who runs a search: leases by the database's clock, and a fencing number that each claim raises."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import case, func, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from db import events, searches
from db.checks import finite
from db.clock import DatabaseTime
from db.models import CLAIMABLE, Search


def claim_next(
    session: Session,
    owner: str,
    lease_seconds: float,
    *,
    most_running: int | None = None,
    passing_over: Sequence[str] = (),
) -> Search | None:
    """Takes the next search for `owner`, or None: queued ones and those whose lease has run out, by priority and age.

    One statement sets the lease, the first heartbeat and the next attempt. With `most_running`, nothing queued is
    taken while that many searches have a living lease (roughly: two claims at one moment do not see each other).
    `passing_over`: searches that the caller cannot run now. Taking one whose lease has run out counts as a death of
    its driver.
    """
    lease = _lease(lease_seconds)
    candidate = aliased(Search)
    # said without "status = …", which would make SQLite search by status and sort instead of walking the queue
    free = [or_(candidate.status != "running", candidate.lease_expires_at <= DatabaseTime())]
    if most_running is not None:
        free.append(or_(candidate.status == "running", _living() < most_running))
    if passing_over:
        free.append(candidate.id.not_in(passing_over))
    chosen = (
        select(candidate.id)
        .where(text(CLAIMABLE), *free)
        .order_by(candidate.priority.desc(), candidate.created_at, candidate.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Search)
        .where(Search.id == chosen.scalar_subquery())
        .values(
            status="running",
            attempt=Search.attempt + 1,
            deaths=Search.deaths + case((Search.status == "running", 1), else_=0),
            lease_owner=owner,
            lease_expires_at=lease,
            heartbeat_at=DatabaseTime(),
            started_at=func.coalesce(Search.started_at, DatabaseTime()),
            waiting_reason=None,
            version=Search.version + 1,
            event_seq=Search.event_seq + 1,
        )
        .returning(Search)
    )
    options = {"populate_existing": True, "synchronize_session": False}
    search = session.scalars(statement, execution_options=options).one_or_none()
    if search is not None:
        told = {"status": "running", "attempt": search.attempt}
        events.insert_numbered(session, search.id, search.event_seq, [("search.status", told)])
    return search


def renew(session: Session, search_id: str, attempt: int, lease_seconds: float) -> bool:
    """Lengthens the lease and beats the heart. False when another attempt holds the search or none does."""
    renewed = session.execute(
        update(Search)
        .where(Search.id == search_id, Search.attempt == attempt, Search.lease_owner.is_not(None))
        .values(lease_expires_at=_lease(lease_seconds), heartbeat_at=DatabaseTime())
        .returning(Search.id)
        .execution_options(synchronize_session=False)
    )
    return renewed.scalar_one_or_none() is not None


def release(
    session: Session,
    search_id: str,
    attempt: int,
    status: str,
    *,
    error: Mapping[str, Any] | None = None,
    died: bool = False,
) -> bool:
    """Ends the lease with the search finished, paused or back in the queue: see `searches.set_status`."""
    return searches.set_status(session, search_id, attempt, status, error=error, died=died)


def set_quotas(session: Session, quotas: Mapping[str, int]) -> None:
    """Gives searches their shares of the slots; unknown ones are passed over."""
    for search_id in sorted(quotas):  # one order for everybody, so that two dispatchers never wait for each other
        session.execute(
            update(Search)
            .where(Search.id == search_id, Search.quota != quotas[search_id])
            .values(quota=quotas[search_id])
            .execution_options(synchronize_session=False)
        )


def running(session: Session) -> list[Search]:
    """Searches with a living lease, oldest first."""
    statement = select(Search).where(Search.status == "running", Search.lease_expires_at > DatabaseTime())
    return list(session.scalars(statement.order_by(Search.created_at, Search.id)))


def _living() -> Any:
    other = aliased(Search)
    counted = select(func.count()).where(other.status == "running", other.lease_expires_at > DatabaseTime())
    return counted.scalar_subquery()


def _lease(seconds: float) -> DatabaseTime:
    if not (finite("lease_seconds", seconds) or 0) > 0:
        raise ValueError(f"lease_seconds must be positive, not {seconds}")
    return DatabaseTime(seconds)

"""Who runs a search: leases by the database's clock, and a fencing number that each claim raises.

An owner is the dispatcher that claimed, "host:pid:start time@cluster": what follows the @ names the Ray cluster that
its drivers use, as searches share slots only with those of their own cluster. `driver` is the process at work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, false, func, not_, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from db import checks, events, searches
from db.checks import finite
from db.clock import DatabaseTime
from db.models import CLAIMABLE, Search

CLAIM_LOCK = 4_117_000_001
"""Key of PostgreSQL's advisory lock under which searches are counted and claimed."""


Room = Sequence[tuple[float, float]]
"""CPUs and GPUs of nodes; enough are those of which no other has more of both."""


@dataclass(frozen=True)
class Held:
    """A running search. resources: of its spec. expired: its lease has run out and nobody has taken it over yet.

    beats: whether its driver has renewed the lease itself, so that it is not starting any more.
    """

    id: str
    attempt: int
    priority: int
    quota: int
    owner: str
    driver: str | None
    resources: Mapping[str, Any]
    expired: bool
    beats: bool


@dataclass(frozen=True)
class Waiting:
    """A queued search. fits: whether a trial of it fits on some node."""

    id: str
    resources: Mapping[str, Any]
    fits: bool


def claim_next(
    session: Session,
    owner: str,
    lease_seconds: float,
    *,
    most_running: int | None = None,
    among: Sequence[str] | None = None,
) -> Search | None:
    """Takes the next search for `owner`, or None: queued ones and those whose lease has run out, by priority and age.

    One statement sets the lease, the first heartbeat and the next attempt. With `most_running`, nothing queued is
    taken while that many searches of the owner's cluster have a living lease. `among`: only these, and only from the
    queue. Taking one whose lease has run out counts as a death of its driver.
    """
    if most_running is not None and not _lock_claims(session):
        return None
    candidate = aliased(Search)
    room = None if most_running is None else _living(owner) < most_running
    if among is not None:
        chosen = select(candidate.id).where(candidate.id.in_(among), candidate.status == "queued")
        chosen = chosen if room is None else chosen.where(room)
    else:
        # said without "status = …", which would make SQLite search by status and sort instead of walking the queue
        chosen = select(candidate.id).where(text(CLAIMABLE))
        chosen = chosen.where(or_(candidate.status != "running", candidate.lease_expires_at <= DatabaseTime()))
        chosen = chosen if room is None else chosen.where(or_(candidate.status == "running", room))
    chosen = chosen.order_by(candidate.priority.desc(), candidate.created_at, candidate.id)
    return _take(session, chosen, owner, lease_seconds)


def take_over(session: Session, owner: str, lease_seconds: float) -> Search | None:
    """Takes a running search whose lease has run out, or None; its driver counts as dead."""
    candidate = aliased(Search)
    chosen = select(candidate.id).where(candidate.status == "running", candidate.lease_expires_at <= DatabaseTime())
    return _take(session, chosen.order_by(candidate.lease_expires_at), owner, lease_seconds)


def _take(session: Session, chosen: Select[str], owner: str, lease_seconds: float) -> Search | None:
    """Claims the first of `chosen` that no other transaction is claiming."""
    lease = _lease(lease_seconds)
    first = chosen.limit(1).with_for_update(skip_locked=True)
    statement = (
        update(Search)
        .where(Search.id == first.scalar_subquery())
        .values(
            status="running",
            attempt=Search.attempt + 1,
            deaths=Search.deaths + case((Search.status == "running", 1), else_=0),
            lease_owner=owner,
            driver=None,
            lease_expires_at=lease,
            heartbeat_at=DatabaseTime(),
            first_beat_at=None,
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


def register_driver(session: Session, search_id: str, attempt: int, driver: str) -> bool:
    """Notes the process that works for this attempt. False when another attempt holds the search or none does."""
    return _update_held(session, search_id, attempt, driver=driver)


def adopt(session: Session, search_id: str, attempt: int, *, from_owner: str, owner: str) -> bool:
    """Makes `owner` the one that watches a running attempt. False when `from_owner` is not the one that did."""
    return _update_held(session, search_id, attempt, Search.lease_owner == from_owner, lease_owner=owner)


def renew(
    session: Session,
    search_id: str,
    attempt: int,
    lease_seconds: float,
    *,
    active_seconds: float | None = None,
    seconds_left: float | None = None,
) -> bool:
    """Lengthens the lease and beats the heart. False when another attempt holds the search or none does.

    A driver, unlike a dispatcher that renews for it, adds how long drivers have worked on the search in all
    (`active_seconds`) and its estimate of the time left, None when it has none.
    """
    values: dict[str, Any] = {"lease_expires_at": _lease(lease_seconds), "heartbeat_at": DatabaseTime()}
    if active_seconds is not None:
        values |= checks.row(Search, {"active_seconds": active_seconds, "seconds_left": seconds_left})
        values["first_beat_at"] = func.coalesce(Search.first_beat_at, DatabaseTime())
    return _update_held(session, search_id, attempt, **values)


def _update_held(
    session: Session, search_id: str, attempt: int, *conditions: ColumnElement[bool], **values: Any
) -> bool:
    held = update(Search).where(Search.id == search_id, Search.attempt == attempt, Search.lease_owner.is_not(None))
    changed = session.execute(
        held.where(*conditions).values(**values).returning(Search.id).execution_options(synchronize_session=False)
    )
    return changed.scalar_one_or_none() is not None


def release(
    session: Session,
    search_id: str,
    attempt: int,
    status: str,
    *,
    error: Mapping[str, Any] | None = None,
    died: bool = False,
    active_seconds: float | None = None,
) -> bool:
    """Ends the lease with the search finished, paused or back in the queue: see `searches.set_status`."""
    return searches.set_status(
        session, search_id, attempt, status, error=error, died=died, active_seconds=active_seconds
    )


def set_quotas(session: Session, quotas: Mapping[str, int]) -> None:
    """Gives searches their shares of the slots; unknown ones are passed over."""
    for search_id in sorted(quotas):  # one order for everybody, so that two dispatchers never wait for each other
        session.execute(
            update(Search)
            .where(Search.id == search_id, Search.quota != quotas[search_id])
            .values(quota=quotas[search_id])
            .execution_options(synchronize_session=False)
        )


def running(session: Session) -> list[Held]:
    """Searches that are running, oldest first; those whose lease has run out too."""
    expired = (Search.lease_expires_at <= DatabaseTime()).label("expired")
    beats = Search.first_beat_at.is_not(None).label("beats")
    statement = select(
        Search.id, Search.attempt, Search.priority, Search.quota, Search.lease_owner, Search.driver,
        Search.spec["resources"], expired, beats,
    ).where(Search.status == "running")  # fmt: skip
    found = session.execute(statement.order_by(Search.created_at, Search.id))
    return [
        Held(search_id, attempt, priority, quota, owner or "", driver, resources or {}, bool(is_expired), bool(beating))
        for search_id, attempt, priority, quota, owner, driver, resources, is_expired, beating in found
    ]


def fitting(session: Session, room: Room, *, limit: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Queued searches of which a trial fits into the `room` of one node, with the resources of a trial, in the order in
    which they are claimed."""
    statement = _queue(select(Search.id, Search.spec["resources"])).where(_fits(room))
    return [(search_id, resources or {}) for search_id, resources in session.execute(statement.limit(limit))]


def wanted(session: Session, *, limit: int) -> list[tuple[Mapping[str, Any], int]]:
    """Resources of one trial, and how many trials, of searches that run or are queued, in the order of the queue."""
    statement = select(Search.spec["resources"], Search.spec["budget"]["trials"].as_integer()).where(text(CLAIMABLE))
    ordered = statement.order_by(Search.priority.desc(), Search.created_at, Search.id).limit(limit)
    return [(resources or {}, trials or 1) for resources, trials in session.execute(ordered)]


def to_explain(session: Session, room: Room, *, limit: int) -> list[Waiting]:
    """Queued searches that do not fit and have not been told so, or that fit and are still told that they do not."""
    told, fits = Search.waiting_reason.is_not(None), _fits(room)
    statement = _queue(select(Search.id, Search.spec["resources"], fits)).where(
        or_(and_(fits, told), not_(or_(fits, told)))
    )
    found = session.execute(statement.limit(limit))
    return [Waiting(search_id, resources or {}, bool(it_fits)) for search_id, resources, it_fits in found]


def _queue(statement: Select[Any]) -> Select[Any]:
    # "status != 'running'" and not "= 'queued'": see claim_next
    waiting = statement.where(text(CLAIMABLE), Search.status != "running")
    return waiting.order_by(Search.priority.desc(), Search.created_at, Search.id)


def _fits(room: Room) -> ColumnElement[bool]:
    resources = Search.spec["resources"]
    cpus, gpus = resources["cpus"].as_float(), resources["gpus"].as_float()
    return or_(false(), *(and_(cpus <= most_cpus, gpus <= most_gpus) for most_cpus, most_gpus in room))


def cluster_of(owner: str) -> str:
    """The Ray cluster in an owner's name; empty for one that names none."""
    return owner.partition("@")[2]


def _living(owner: str) -> Any:
    """How many searches with a living lease share slots with those of `owner`."""
    other = aliased(Search)
    counted = select(func.count()).where(other.status == "running", other.lease_expires_at > DatabaseTime())
    if cluster := cluster_of(owner):
        counted = counted.where(other.lease_owner.endswith(f"@{cluster}", autoescape=True))
    return counted.scalar_subquery()


def _lock_claims(session: Session) -> bool:
    """Keeps others from counting and claiming until the commit; False when somebody else is at it just now.

    SQLite has one writer at a time anyway.
    """
    if session.get_bind().dialect.name != "postgresql":
        return True
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(CLAIM_LOCK))))


def _lease(seconds: float) -> DatabaseTime:
    if not (finite("lease_seconds", seconds) or 0) > 0:
        raise ValueError(f"lease_seconds must be positive, not {seconds}")
    return DatabaseTime(seconds)

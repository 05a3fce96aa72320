"""Schedules and their fires. When the next fire is due is worked out by the caller; here it is kept and found."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.errors import Conflict, NotFound, Stale
from db.ids import uuid7
from db.models import FINISHED_STATUSES, Fire, Schedule, Search
from db.paging import Cursor, Page, keyset
from db.paging import page as page_of
from db.upserts import insert_into

EDITABLE = frozenset(
    {
        "name", "cron", "zone", "template", "overlap", "catch_up_seconds", "jitter_seconds", "start_at", "end_at",
        "enabled", "priority", "keep", "next_fire_at", "planned_at", "owner", "notify",
    }
)  # fmt: skip


def create(
    session: Session,
    *,
    name: str,
    cron: str,
    zone: str,
    template: Mapping[str, Any],
    next_fire_at: datetime | None,
    id: str | None = None,
    **options: Any,
) -> Schedule:
    """Keeps a schedule; `options` are other editable columns. Raises Conflict when the name is taken."""
    values = {"name": name, "cron": cron, "zone": zone, "template": dict(template), "next_fire_at": next_fire_at}
    values["id"] = id or uuid7()
    _check_editable(options)
    checked = checks.row(Schedule, values | options)
    statement = insert_into(session, Schedule).values(**checked).on_conflict_do_nothing(index_elements=["name"])
    schedule = session.scalars(statement.returning(Schedule)).one_or_none()
    if schedule is None:
        raise Conflict(f"there is a schedule named {name!r} already")
    return schedule


def get(session: Session, schedule_id: str) -> Schedule:
    """The schedule. Raises NotFound."""
    statement = select(Schedule).where(Schedule.id == schedule_id)
    schedule = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if schedule is None:
        raise NotFound("schedule", schedule_id)
    return schedule


def page(session: Session, *, after: Cursor | None = None, limit: int = 50) -> Page[Schedule]:
    """A page of schedules by name."""
    name, key = Schedule.name.expression, Schedule.id.expression
    statement = keyset(select(Schedule), name, key, descending=False, after=after, limit=limit)
    return page_of(list(session.scalars(statement)), limit, lambda row: (row.name, row.id))


def edit(session: Session, schedule_id: str, *, version: int | None = None, **values: Any) -> Schedule:
    """Changes columns and raises the version. Raises NotFound, Stale, and Conflict when the name is taken.

    A schedule that is disabled has no next fire: pass `next_fire_at=None` with `enabled=False`.
    """
    _check_editable(values)
    schedule = lock(session, schedule_id, version=version)
    name = values.get("name", schedule.name)
    if session.scalar(select(Schedule.id).where(Schedule.name == name, Schedule.id != schedule_id)) is not None:
        raise Conflict(f"there is a schedule named {name!r} already")
    changed = update(Schedule).where(Schedule.id == schedule_id).values(checks.row(Schedule, values))
    changed = changed.values(version=Schedule.version + 1, updated_at=DatabaseTime())
    session.execute(changed.execution_options(synchronize_session=False))
    return get(session, schedule_id)


def delete(session: Session, schedule_id: str) -> None:
    """Deletes a schedule and its fires; the searches that it made stay. Raises NotFound."""
    statement = delete_from(Schedule).where(Schedule.id == schedule_id).returning(Schedule.id)
    gone = session.execute(statement.execution_options(synchronize_session=False))
    if gone.scalar_one_or_none() is None:
        raise NotFound("schedule", schedule_id)


def due(session: Session, now: datetime | None = None, limit: int = 100) -> list[Schedule]:
    """Schedules whose next fire is not after `now` (the database's clock by default), the longest due first.

    One index range.
    """
    moment = DatabaseTime() if now is None else now
    statement = select(Schedule).where(Schedule.next_fire_at <= moment)
    return list(session.scalars(statement.order_by(Schedule.next_fire_at, Schedule.id).limit(limit)))


def anything_due(session: Session) -> bool:
    """Whether `take_due` would find something; reads the first entry of one index range."""
    first = select(Schedule.id).where(Schedule.next_fire_at <= DatabaseTime()).order_by(Schedule.next_fire_at)
    return session.scalar(first.limit(1)) is not None


def take_due(session: Session, limit: int = 100) -> list[Schedule]:
    """As `due`, with the rows locked until the commit; those that another scheduler has locked are passed over."""
    statement = select(Schedule).where(Schedule.next_fire_at <= DatabaseTime())
    statement = statement.order_by(Schedule.next_fire_at, Schedule.id).limit(limit)
    locked = statement.with_for_update(skip_locked=True, key_share=True)
    return list(session.scalars(locked, execution_options={"populate_existing": True}))


def record_fire(
    session: Session,
    schedule_id: str,
    fire_at: datetime,
    status: str,
    *,
    search_id: str | None = None,
    reason: str | None = None,
) -> bool:
    """Notes what became of a fire. False when that time has been dealt with already."""
    values = {"schedule_id": schedule_id, "fire_at": fire_at, "status": status}
    values |= {"search_id": search_id, "reason": reason}
    statement = insert_into(session, Fire).values(**checks.row(Fire, values))
    once = statement.on_conflict_do_nothing(index_elements=["schedule_id", "fire_at"]).returning(Fire.id)
    return session.execute(once).scalar_one_or_none() is not None


def record_fires(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """As `record_fire`, for many at once: each with schedule_id, fire_at, status, search_id and reason."""
    if rows:
        statement = insert_into(session, Fire).on_conflict_do_nothing(index_elements=["schedule_id", "fire_at"])
        session.connection().execute(statement, [checks.row(Fire, row) for row in rows])


def move_on(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """As `set_next_fire`, for many at once: each with id, next_fire_at, planned_at, last_fire_at."""
    if rows:
        session.execute(update(Schedule), [dict(row) for row in rows])


def set_next_fire(
    session: Session,
    schedule_id: str,
    next_fire_at: datetime | None,
    *,
    planned_at: datetime | None,
    last: datetime | None = None,
) -> None:
    """Moves a schedule on after a fire (`last`), or lets one wait. Not a change by a user: the version stays."""
    values = {"next_fire_at": next_fire_at, "planned_at": planned_at} | ({} if last is None else {"last_fire_at": last})
    statement = update(Schedule).where(Schedule.id == schedule_id).values(values)
    session.execute(statement.execution_options(synchronize_session=False))


def lock(session: Session, schedule_id: str, *, version: int | None = None) -> Schedule:
    """The schedule, its row locked until the commit. Raises NotFound, and Stale when `version` is not the row's."""
    statement = select(Schedule).where(Schedule.id == schedule_id).with_for_update(key_share=True)
    found = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if found is None:
        raise NotFound("schedule", schedule_id)
    if version is not None and found.version != version:
        raise Stale(f"the schedule has changed since version {version}: it is at {found.version}")
    return found


def dealt_with(session: Session, schedule_ids: Sequence[str], since: datetime) -> set[tuple[str, datetime]]:
    """The fires of these schedules, by schedule and time, of which something has become already."""
    statement = select(Fire.schedule_id, Fire.fire_at).where(Fire.schedule_id.in_(schedule_ids), Fire.fire_at >= since)
    return {(schedule_id, at) for schedule_id, at in session.execute(statement)}


def with_results(session: Session, schedule_ids: Sequence[str]) -> set[str]:
    """Those of these schedules that have a search that has succeeded."""
    some = select(Search.id).where(Search.schedule_id == Schedule.id, Search.status == "succeeded").exists()
    return set(session.scalars(select(Schedule.id).where(Schedule.id.in_(schedule_ids), some)))


def unfinished_searches(session: Session, schedule_ids: Sequence[str]) -> dict[str, list[str]]:
    """The searches of these schedules that have not ended, by schedule, the oldest first."""
    unfinished = select(Search.schedule_id, Search.id).where(
        Search.schedule_id.in_(schedule_ids), Search.status.not_in(FINISHED_STATUSES)
    )
    found: dict[str, list[str]] = {schedule_id: [] for schedule_id in schedule_ids}
    for schedule_id, search_id in session.execute(unfinished.order_by(Search.fire_at, Search.id)):
        found[str(schedule_id)].append(search_id)
    return found


def latest_result(session: Session, schedule_id: str, *, before: datetime | None = None) -> Search | None:
    """The schedule's newest search that has succeeded, of those fired before a time."""
    statement = select(Search).where(Search.schedule_id == schedule_id, Search.status == "succeeded")
    if before is not None:
        statement = statement.where(Search.fire_at < before)
    return session.scalars(statement.order_by(Search.fire_at.desc(), Search.id.desc()).limit(1)).one_or_none()


def fire(session: Session, schedule_id: str, fire_id: str) -> Fire:
    """One fire of a schedule. Raises NotFound."""
    found = session.scalars(select(Fire).where(Fire.schedule_id == schedule_id, Fire.id == fire_id)).one_or_none()
    if found is None:
        raise NotFound("fire", fire_id)
    return found


def fire_of_search(session: Session, search_id: str) -> Fire | None:
    """The fire that has made a search."""
    return session.scalars(select(Fire).where(Fire.search_id == search_id)).one_or_none()


def fires(session: Session, schedule_id: str, *, after: Cursor | None = None, limit: int = 50) -> Page[Fire]:
    """A page of a schedule's fires, newest first. Raises NotFound for an unknown schedule."""
    statement = select(Fire).where(Fire.schedule_id == schedule_id)
    when, key = Fire.fire_at.expression, Fire.id.expression
    rows = list(session.scalars(keyset(statement, when, key, descending=True, after=after, limit=limit)))
    if not rows:
        get(session, schedule_id)
    return page_of(rows, limit, lambda row: (row.fire_at, row.id))


def _check_editable(values: Mapping[str, Any]) -> None:
    unknown = sorted(set(values) - EDITABLE)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not one of {', '.join(sorted(EDITABLE))}")

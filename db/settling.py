"""Fires whose searches have ended and which nobody has looked at since; and searches beyond what a schedule keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.models import FINISHED_STATUSES, Fire, Schedule, Search


def ended(session: Session, limit: int = 50) -> list[str]:
    """Ids of fires to settle. One range of an index that holds nothing but fires under way."""
    statement = select(Fire.id).join(Search, Search.id == Fire.search_id)
    statement = statement.where(Fire.settled_at.is_(None), Fire.search_id.is_not(None))
    statement = statement.where(Search.status.in_(FINISHED_STATUSES)).order_by(Fire.fire_at, Fire.id)
    return list(session.scalars(statement.limit(limit)))


def look(session: Session, fire_id: str) -> tuple[Fire, Search] | None:
    """A fire to settle with its search, as `take` but without a lock."""
    fire = session.scalars(select(Fire).where(Fire.id == fire_id, Fire.settled_at.is_(None))).one_or_none()
    if fire is None or fire.search_id is None:
        return None
    search = session.get_one(Search, fire.search_id)
    return (fire, search) if search.finished else None


def take(session: Session, fire_id: str) -> tuple[Fire, Schedule, Search] | None:
    """A fire to settle with its rows, locked until the commit; None when another has it or it is not ended any more."""
    locked = select(Fire).where(Fire.id == fire_id, Fire.settled_at.is_(None))
    fire = session.scalars(locked.with_for_update(skip_locked=True, key_share=True)).one_or_none()
    if fire is None or fire.search_id is None:
        return None
    search = session.get_one(Search, fire.search_id)
    return (fire, session.get_one(Schedule, fire.schedule_id), search) if search.finished else None


def settle(session: Session, fire_id: str, comparison: Mapping[str, Any] | None) -> None:
    """The fire has been dealt with. comparison: with the search before, kept for when one of them is deleted."""
    values = checks.row(Fire, {"comparison": None if comparison is None else dict(comparison)})
    statement = update(Fire).where(Fire.id == fire_id).values(settled_at=DatabaseTime(), **values)
    session.execute(statement.execution_options(synchronize_session=False))


def reopen(session: Session, search_id: str) -> None:
    """The search of a fire goes on: it is to be compared and told of again when it ends."""
    statement = update(Fire).where(Fire.search_id == search_id).values(settled_at=None, comparison=None)
    session.execute(statement.execution_options(synchronize_session=False))


def beyond_limit(session: Session, schedule_id: str, keep: int) -> list[str]:
    """The schedule's ended searches that are older than the newest `keep` of them. What is not settled stays, and so
    does the newest that has succeeded: the next one is compared with it."""
    statement = select(Search.id).where(Search.schedule_id == schedule_id, Search.status.in_(FINISHED_STATUSES))
    unsettled = select(Fire.search_id).where(Fire.settled_at.is_(None), Fire.search_id.is_not(None))
    statement = statement.where(Search.id.not_in(unsettled))
    beyond = session.scalars(statement.order_by(Search.fire_at.desc(), Search.id.desc()).offset(keep))
    succeeded = select(Search.id).where(Search.schedule_id == schedule_id, Search.status == "succeeded")
    result = session.scalar(succeeded.order_by(Search.fire_at.desc(), Search.id.desc()).limit(1))
    return [search_id for search_id in beyond if search_id != result]

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
    return list(session.scalars(statement.where(Search.status.in_(FINISHED_STATUSES)).limit(limit)))


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


def beyond_limit(session: Session, schedule_id: str, keep: int) -> list[str]:
    """The schedule's ended searches that are older than the newest `keep` of them; what is not settled stays."""
    statement = select(Search.id).where(Search.schedule_id == schedule_id, Search.status.in_(FINISHED_STATUSES))
    unsettled = select(Fire.search_id).where(Fire.settled_at.is_(None), Fire.search_id.is_not(None))
    statement = statement.where(Search.id.not_in(unsettled))
    return list(session.scalars(statement.order_by(Search.fire_at.desc(), Search.id.desc()).offset(keep)))

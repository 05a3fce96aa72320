"""What a schedule's search takes over of the one before, decided when it starts: since its fire it may have waited, the
search before may have ended, and the data may have grown."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import schedules, search_rows
from db.errors import Fenced, NotFound
from db.measured import Earlier
from db.models import Search, Trial
from search.plan import SearchPlan
from search.previous import with_previous
from search.schedule import wants_previous


def follow(session: Session, search_id: str, attempt: int, plan: SearchPlan) -> SearchPlan:
    """The plan with what it takes over of the search before, stored with the search; as it is once a trial is
    there that has not been put off.

    Raises Fenced when another attempt holds the search.
    """
    search = search_rows.held(session, search_id, attempt)
    if search is None:
        raise Fenced(search_id, attempt)
    begun = select(Trial.id).where(Trial.search_id == search_id, Trial.status != "cancelled").limit(1)
    if search.schedule_id is None or session.scalar(begun) is not None:
        return plan
    before = schedules.latest_result(session, search.schedule_id, before=search.fire_at)
    if before is None:
        return plan
    asked = bool(plan.previous) or _asks(session, search.schedule_id)
    followed = with_previous(plan, Earlier(session, before.id), asked=asked)
    _store(session, search, followed)
    return followed


def _asks(session: Session, schedule_id: str) -> bool:
    try:
        return wants_previous(schedules.get(session, schedule_id).template)
    except NotFound:  # deleted meanwhile
        return False


def _store(session: Session, search: Search, plan: SearchPlan) -> None:
    resolved = plan.resolved()
    spec = {**search.spec, **{part: resolved[part] for part in ("strategy", "budget", "confirm")}}
    if spec != search.spec:
        search_rows.change(session, search.id, {"spec": spec}, "search.follows", {"trials": len(plan.previous)})

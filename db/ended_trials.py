"""What becomes of a search's unfinished trials when it ends, and of its failed ones when it is taken up again."""

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import events
from db.clock import DatabaseTime
from db.models import Trial


def end(session: Session, search_id: str, why: str) -> None:
    """Ends as cancelled what still runs of a search that ends; its epochs stay. What had been paused says so too."""
    error = {"kind": "cancelled", "message": why}
    values = {"status": "cancelled", "finished_at": DatabaseTime(), "error": error, "node": None}
    statement = update(Trial).where(Trial.search_id == search_id, Trial.status == "running").values(**values)
    ended = session.scalars(statement.returning(Trial.id).execution_options(synchronize_session=False)).all()
    _never_goes_on(session, search_id, error)
    told = [("trial.finished", {"trial_id": trial_id, "status": "cancelled"}) for trial_id in sorted(ended)]
    if told:
        events.append_all(session, search_id, told)


def to_retry(session: Session, search_id: str) -> int:
    """Lets the next driver start the failed trials of a search again, with all their retries; what was cancelled is
    started again anyway. Gives the number of both."""
    failed = update(Trial).where(Trial.search_id == search_id, Trial.status == "failed")
    error = {"kind": "cancelled", "message": "It has failed and will be tried again."}
    values: dict[str, Any] = {"status": "cancelled", "error": error, "retries": 0, "retried": None, "deaths": None}
    session.execute(failed.values(**values).execution_options(synchronize_session=False))
    waiting = select(func.count()).where(Trial.search_id == search_id, Trial.status == "cancelled")
    return session.scalar(waiting) or 0


def _never_goes_on(session: Session, search_id: str, error: dict[str, str]) -> None:
    """Trials of a paused search say that they go on, which is not so any more."""
    cancelled = select(Trial.id, Trial.error).where(Trial.search_id == search_id, Trial.status == "cancelled")
    paused = [trial_id for trial_id, was in session.execute(cancelled) if was and was.get("kind") == "paused"]
    for start in range(0, len(paused), 500):
        part = update(Trial).where(Trial.id.in_(paused[start : start + 500])).values(error=error)
        session.execute(part.execution_options(synchronize_session=False))

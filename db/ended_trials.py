"""What becomes of a search's unfinished trials when nobody works on it any more, and of failed ones taken up again."""

from typing import Any

from sqlalchemy import Update, func, select, update
from sqlalchemy.orm import Session

from db import events
from db.clock import DatabaseTime
from db.models import Trial


def leave(session: Session, search_id: str, final: str) -> None:
    """What still runs of a search whose status becomes `final`: its epochs stay, and it is on no node any more.

    Ended as cancelled where the search has finished, and where it is paused, which goes on from there: nobody works on
    it until it is resumed. In the queue it says that it runs, as its next driver comes by itself.
    """
    if final == "queued":
        values: dict[str, Any] = {"node": None}
        session.execute(_running(search_id).values(**values).execution_options(synchronize_session=False))
    elif final == "paused":
        _end(session, search_id, {"kind": "paused", "message": "Paused: it goes on from its last saved epoch."})
    else:
        error = {"kind": "cancelled", "message": f"The search {'was' if final == 'cancelled' else 'has'} {final}."}
        _end(session, search_id, error)
        _never_goes_on(session, search_id, error)


def to_retry(session: Session, search_id: str) -> int:
    """Lets the next driver start the failed trials of a search again, with all their retries; what was cancelled is
    started again anyway. Gives the number of both."""
    failed = update(Trial).where(Trial.search_id == search_id, Trial.status == "failed")
    error = {"kind": "cancelled", "message": "It has failed and will be tried again."}
    values: dict[str, Any] = {"status": "cancelled", "error": error, "retries": 0, "retried": None, "deaths": None}
    session.execute(failed.values(**values).execution_options(synchronize_session=False))
    waiting = select(func.count()).where(Trial.search_id == search_id, Trial.status == "cancelled")
    return session.scalar(waiting) or 0


def _running(search_id: str) -> Update:
    return update(Trial).where(Trial.search_id == search_id, Trial.status == "running")


def _end(session: Session, search_id: str, error: dict[str, str]) -> None:
    values = {"status": "cancelled", "finished_at": DatabaseTime(), "error": error, "node": None}
    statement = _running(search_id).values(**values).returning(Trial.id)
    ended = session.scalars(statement.execution_options(synchronize_session=False)).all()
    told = [("trial.finished", {"trial_id": trial_id, "status": "cancelled"}) for trial_id in sorted(ended)]
    if told:
        events.append_all(session, search_id, told)


def _never_goes_on(session: Session, search_id: str, error: dict[str, str]) -> None:
    """Trials of a paused search say that they go on, which is not so any more."""
    cancelled = select(Trial.id, Trial.error).where(Trial.search_id == search_id, Trial.status == "cancelled")
    paused = [trial_id for trial_id, was in session.execute(cancelled) if was and was.get("kind") == "paused"]
    for start in range(0, len(paused), 500):
        part = update(Trial).where(Trial.id.in_(paused[start : start + 500])).values(error=error)
        session.execute(part.execution_options(synchronize_session=False))

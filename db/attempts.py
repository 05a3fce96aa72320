"""Attempts at a trial: started again, tried again after a failure, where it runs, how long it has held its slot.

Written by the search's driver under the fence. Every value is absolute, so that a repeated write changes nothing.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, update
from sqlalchemy.orm import Session

from db import checks, events
from db.clock import DatabaseTime
from db.models import Trial
from db.search_rows import fence
from db.trials import get, told


def restart(session: Session, trial_id: str, attempt: int, *, retries: int, evaluation_key: str | None = None) -> Trial:
    """Sets a trial to running again, to be tried again or gone on with: its number stays. retries: failures so far.
    evaluation_key: another one where the data have changed since; None: as it was.

    Its epochs stay until they are reported again. Raises NotFound and Fenced.
    """
    trial = get(session, trial_id)
    fence(session, trial.search_id, attempt)
    values = {"status": "running", "finished_at": None, "error": None, "node": None, "retries": retries}
    values |= {} if evaluation_key is None else {"evaluation_key": evaluation_key}
    _update(session, values, Trial.id == trial_id)
    restarted = get(session, trial_id)
    events.append(session, trial.search_id, "trial.started", told(restarted))
    return restarted


def retry(
    session: Session,
    trial_id: str,
    attempt: int,
    *,
    retried: Mapping[str, int],
    busy_seconds: float,
    error: Mapping[str, Any],
    deaths: Mapping[str, int] | None = None,
) -> None:
    """Notes that a running trial has failed and will be tried again: it stays running, on no node.

    retried: failures so far by class, this one included. error: kind and message of this one, for the event
    `trial.retried`. deaths: of its process, as they count for its retries. A repeated call changes nothing. Raises
    NotFound and Fenced.
    """
    trial = get(session, trial_id)
    fence(session, trial.search_id, attempt)
    total = sum(retried.values())
    values = {"node": None, "retries": total, "retried": dict(retried), "busy_seconds": busy_seconds}
    if deaths is not None:
        values["deaths"] = dict(deaths)
    if trial.retried == retried or not _update(session, values, Trial.id == trial_id, Trial.status == "running"):
        return
    said = {name: error.get(name) for name in ("kind", "message")}
    events.append(
        session,
        trial.search_id,
        "trial.retried",
        {"trial_id": trial_id, "number": trial.number, "retries": total, "error": said},
    )


def place(
    session: Session, search_id: str, attempt: int, trial_id: str, node: str | None, *, first: bool = False
) -> None:
    """Notes the Ray node that a running trial has been started on, None when it has given up its slot.

    first: it starts now, however long its row has been there. Raises Fenced.
    """
    fence(session, search_id, attempt)
    values: dict[str, Any] = {"node": node} | ({"started_at": DatabaseTime()} if first else {})
    _update(session, values, Trial.id == trial_id, Trial.status == "running")


def spend(session: Session, search_id: str, attempt: int, busy_seconds: Mapping[str, float]) -> None:
    """Notes how long running trials (by id) have held their slots up to now. Raises Fenced."""
    fence(session, search_id, attempt)
    for trial_id in sorted(busy_seconds):
        values = {"busy_seconds": busy_seconds[trial_id]}
        _update(session, values, Trial.id == trial_id, Trial.search_id == search_id, Trial.status == "running")


def _update(session: Session, values: Mapping[str, Any], *conditions: ColumnElement[bool]) -> bool:
    """Whether a row met the conditions."""
    statement = update(Trial).where(*conditions).values(checks.row(Trial, values)).returning(Trial.id)
    return session.execute(statement.execution_options(synchronize_session=False)).one_or_none() is not None

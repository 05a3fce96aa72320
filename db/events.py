"""What has happened in a search, numbered per search in the order of the commits, so that a reader misses nothing.

Kinds written by this package: search.created, search.status, search.command, search.progress, search.changed,
trial.started, trial.epoch, trial.retried, trial.finished, search.gpu_probed, search.follows. Drivers append
trial.resumed, checkpoint.failed, checkpoint.corrupt, data.slow, compile.failed and latency.other_device, as trials note
them; others may append their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session

from db import checks
from db.errors import NotFound
from db.models import NOTABLE, Event, Search

LONGEST_PAGE = 1000
TRIAL_NOTES = ("trial.resumed", "trial.retried", "checkpoint.failed", "checkpoint.corrupt", "data.slow",
               "compile.failed", "latency.other_device")  # fmt: skip
"""What is worth telling of one trial beside its epochs."""


def append(session: Session, search_id: str, kind: str, data: Mapping[str, Any] | None = None) -> int:
    """Adds one event and returns its number. Locks the search's row until the commit. Raises NotFound."""
    return append_all(session, search_id, [(kind, data or {})])


def append_all(session: Session, search_id: str, events: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Adds events in order and returns the number of the last one. Raises NotFound."""
    last = session.execute(
        update(Search)
        .where(Search.id == search_id)
        .values(event_seq=Search.event_seq + len(events))
        .returning(Search.event_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if last is None:
        raise NotFound("search", search_id)
    insert_numbered(session, search_id, last, events)
    return last


def insert_numbered(
    session: Session, search_id: str, last: int, events: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """Inserts events whose numbers, up to `last`, the caller has taken from `searches.event_seq` already."""
    first = last - len(events) + 1
    rows = [
        checks.row(Event, {"search_id": search_id, "seq": first + index, "kind": kind, "data": dict(data)})
        for index, (kind, data) in enumerate(events)
    ]
    if rows:
        session.execute(insert(Event), rows)


def insert_first(session: Session, firsts: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
    """Inserts the first event of each new search: kind and data by the search's id."""
    rows = [{"search_id": key, "seq": 1, "kind": kind, "data": dict(data)} for key, (kind, data) in firsts.items()]
    if rows:
        session.execute(insert(Event), [checks.row(Event, row) for row in rows])


def after(session: Session, search_id: str, seq: int, limit: int = LONGEST_PAGE) -> list[Event]:
    """Events with a number above `seq`, oldest first, at most `limit`. Raises NotFound for an unknown search."""
    statement = select(Event).where(Event.search_id == search_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    found = list(session.scalars(statement))
    if not found and session.scalar(select(Search.id).where(Search.id == search_id)) is None:
        raise NotFound("search", search_id)
    return found


def notes_of_trial(session: Session, search_id: str, trial_id: str, limit: int = LONGEST_PAGE) -> list[Event]:
    """How often and why a trial was tried again or resumed, and what was wrong with its checkpoints, oldest first."""
    statement = select(Event).where(text(NOTABLE), Event.kind.in_(TRIAL_NOTES), Event.search_id == search_id)
    statement = statement.where(Event.data["trial_id"].as_string() == trial_id)
    return list(session.scalars(statement.order_by(Event.seq).limit(limit)))


def last_seq(session: Session, search_id: str) -> int:
    """The number of the newest event, 0 when there is none. Raises NotFound."""
    last = session.scalar(select(Search.event_seq).where(Search.id == search_id))
    if last is None:
        raise NotFound("search", search_id)
    return last

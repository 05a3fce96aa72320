"""The rows of searches under a lock: who may write, and the one way in which a row is changed."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from db import checks, events
from db.clock import DatabaseTime
from db.errors import Fenced, NotFound, Stale
from db.models import Search

UNLEASED: dict[str, Any] = {
    "command": None,
    "lease_owner": None,
    "lease_expires_at": None,
    "driver": None,
    "waiting_reason": None,
    "seconds_left": None,
}

_PASSED = "attune_passed_fences"
"""In `Session.info`; a session of db.engine is one transaction."""


def lock(session: Session, search_id: str, *, version: int | None = None) -> Search:
    """The search, its row locked until the commit. Raises NotFound, and Stale when `version` is not the row's."""
    search = found(locked(session, Search.id == search_id), search_id)
    if version is not None and search.version != version:
        raise Stale(f"the search has changed since version {version}: it is at {search.version}")
    return search


def held(session: Session, search_id: str, attempt: int) -> Search | None:
    """The search, its row locked, if this attempt still holds it."""
    return locked(session, Search.id == search_id, Search.attempt == attempt, Search.lease_owner.is_not(None))


def fence(session: Session, search_id: str, attempt: int) -> None:
    """Stands before every write of a driver: locks the search's row until the commit, or raises Fenced."""
    passed: set[tuple[str, int]] = session.info.setdefault(_PASSED, set())
    if (search_id, attempt) in passed:  # in this transaction, whose lock keeps everybody else out
        return
    if held(session, search_id, attempt) is None:
        raise Fenced(search_id, attempt)
    passed.add((search_id, attempt))


def locked(session: Session, *conditions: ColumnElement[bool]) -> Search | None:
    """The search that meets the conditions, its row locked until the commit."""
    statement = select(Search).where(*conditions).with_for_update(key_share=True)
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


def change(session: Session, search_id: str, values: Mapping[str, Any], kind: str, data: Mapping[str, Any]) -> Search:
    """Updates columns, raises the version and writes one event, in two statements. Raises NotFound."""
    changed = session.scalars(
        update(Search)
        .where(Search.id == search_id)
        .values(checks.row(Search, values))
        .values(version=Search.version + 1, event_seq=Search.event_seq + 1)
        .returning(Search),
        execution_options={"populate_existing": True, "synchronize_session": False},
    ).one_or_none()
    search = found(changed, search_id)
    events.insert_numbered(session, search_id, search.event_seq, [(kind, data)])
    return search


def ended(status: str) -> dict[str, Any]:
    """The columns of a search that ends now: no lease, no command."""
    return {"status": status, "finished_at": DatabaseTime()} | UNLEASED


def found(search: Search | None, search_id: str) -> Search:
    """The search that was asked for. Raises NotFound when there was none."""
    if search is None:
        raise NotFound("search", search_id)
    return search

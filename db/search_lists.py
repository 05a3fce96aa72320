"""Searches in lists: pages of them by filters, and how many there are of what."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from db.models import SEARCH_STATUSES, Search, Trial
from db.paging import Cursor, Page, keyset
from db.paging import page as page_of

SORTS = ("created_at", "name", "priority", "hypervolume", "started_at", "finished_at")
LONGEST_PAGE = 500


def page(
    session: Session,
    *,
    status: str | Sequence[str] | None = None,
    tag: str | None = None,
    name_contains: str | None = None,
    owner: str | None = None,
    schedule_id: str | None = None,
    sort: str = "created_at",
    descending: bool = True,
    after: Cursor | None = None,
    limit: int = 50,
) -> Page[Search]:
    """A page of searches, newest first by default. Raises ValueError for an unknown status, sort or limit."""
    if sort not in SORTS:
        raise ValueError(f"sort: {sort!r} is not one of {', '.join(SORTS)}")
    if limit > LONGEST_PAGE:
        raise ValueError(f"limit: at most {LONGEST_PAGE}, not {limit}")
    statement = select(Search)
    if status is not None:
        statement = statement.where(Search.status.in_(_statuses(status)))
    if tag is not None:
        statement = statement.where(_has_tag(session, tag))
    if name_contains:
        statement = statement.where(Search.name.icontains(name_contains, autoescape=True))
    if owner is not None:
        statement = statement.where(Search.owner == owner)
    if schedule_id is not None:
        statement = statement.where(Search.schedule_id == schedule_id)
    column = getattr(Search, sort).expression
    statement = keyset(statement, column, Search.id.expression, descending=descending, after=after, limit=limit)
    return page_of(list(session.scalars(statement)), limit, lambda row: (getattr(row, sort), row.id))


def _statuses(status: str | Sequence[str]) -> list[str]:
    wanted = [status] if isinstance(status, str) else list(status)
    for word in wanted:
        if word not in SEARCH_STATUSES:
            raise ValueError(f"status: {word!r} is not one of {', '.join(SEARCH_STATUSES)}")
    return wanted


def _has_tag(session: Session, tag: str) -> ColumnElement[bool]:
    if session.get_bind().dialect.name == "postgresql":
        found: ColumnElement[bool] = Search.tags.cast(JSONB).contains([tag])
        return found
    each = func.json_each(Search.tags).table_valued("value")
    return select(1).select_from(each).where(each.c.value == tag).exists()


def counts(session: Session, search_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many trials each search has per status; statuses without a trial are left out."""
    counted: dict[str, dict[str, int]] = {search_id: {} for search_id in search_ids}
    statement = (
        select(Trial.search_id, Trial.status, func.count())
        .where(Trial.search_id.in_(search_ids))
        .group_by(Trial.search_id, Trial.status)
    )
    for search_id, status, number in session.execute(statement):
        counted[search_id][status] = number
    return counted


def status_counts(session: Session) -> dict[str, int]:
    """How many searches are in each status (all statuses, zeros included)."""
    found = session.execute(select(Search.status, func.count()).group_by(Search.status))
    return dict.fromkeys(SEARCH_STATUSES, 0) | dict(found.all())


def queued(session: Session, *, limit: int = 1000) -> list[Search]:
    """Searches that wait for a driver, the next one first."""
    statement = select(Search).where(Search.status == "queued")
    return list(session.scalars(statement.order_by(Search.priority.desc(), Search.created_at, Search.id).limit(limit)))

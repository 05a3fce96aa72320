"""Pages by key instead of by offset: complete and without doubles while rows come and go, and fast at any depth.

Rows without a value come last in either direction, on both databases, which disagree about that by themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_

T = TypeVar("T")
S = TypeVar("S", bound=Select[Any])

Cursor = tuple[Any, Any]
"""The sort column's value and the tie-breaker's of the last row seen."""


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows, and where the next page begins (None: this was the last)."""

    items: list[T]
    next: Cursor | None


def keyset(
    statement: S,
    column: ColumnElement[Any],
    tie: ColumnElement[Any],
    *,
    descending: bool,
    after: Cursor | None,
    limit: int,
) -> S:
    """The statement ordered by (column, tie), both in one direction, after the cursor, with one row to spare.

    The cursor's value must be the one that the database has for `column`: SQLite reads a number out of text with
    an error in the last place, so for such a column Python's own reading never equals it.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    if after is not None:
        statement = statement.where(_behind(column, tie, after, descending=descending))
    ordered = [column.desc(), tie.desc()] if descending else [column.asc(), tie.asc()]
    if _nullable(column):
        ordered.insert(0, column.is_(None).asc())
    return statement.order_by(*ordered).limit(limit + 1)


def page(rows: list[T], limit: int, cursor: Callable[[T], Cursor]) -> Page[T]:
    """The rows of a `keyset` statement as a page of at most `limit`."""
    items = rows[:limit]
    return Page(items, cursor(items[-1]) if len(rows) > limit else None)


def _behind(
    column: ColumnElement[Any], tie: ColumnElement[Any], after: Cursor, *, descending: bool
) -> ColumnElement[bool]:
    value, last = after
    further = tie < last if descending else tie > last
    if value is None:
        return and_(column.is_(None), further)
    behind = or_(column < value if descending else column > value, and_(column == value, further))
    return or_(behind, column.is_(None)) if _nullable(column) else behind


def _nullable(column: ColumnElement[Any]) -> bool:
    return bool(getattr(column, "nullable", True))

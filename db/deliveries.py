"""Messages about schedules: queued with the change that they tell of, sent by whoever takes them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.ids import uuid7
from db.models import Delivery
from db.paging import Cursor, Page, keyset
from db.paging import page as page_of
from db.upserts import insert_into

LONGEST_ERROR = 1000


def add(
    session: Session, schedule_id: str, *, channel: str, target: str, event: str, payload: Mapping[str, Any],
    id: str | None = None,
) -> Delivery:  # fmt: skip
    """Queues a message; the one that is there, where `id` is that of one."""
    fresh = id or uuid7()
    values = {"id": fresh, "schedule_id": schedule_id, "channel": channel, "target": target, "event": event}
    values = checks.row(Delivery, {**values, "payload": dict(payload)})
    session.execute(insert_into(session, Delivery).values(**values).on_conflict_do_nothing(index_elements=["id"]))
    return session.scalars(select(Delivery).where(Delivery.id == fresh)).one()


def anything_due(session: Session, channel: str | None = None) -> bool:
    """Whether `take` would find something; an index over what is pending."""
    return session.scalar(_due(channel).limit(1)) is not None


def take(session: Session, hold_seconds: float, channel: str | None = None) -> Delivery | None:
    """The message that has been due longest, its attempt counted; None when there is none. channel: of which; None: of
    any.

    Nobody else takes it for `hold_seconds`, so a sender that dies in the middle costs that time and no message.
    """
    first = _due(channel).order_by(Delivery.next_attempt_at, Delivery.id).limit(1).with_for_update(skip_locked=True)
    statement = update(Delivery).where(Delivery.id == first.scalar_subquery())
    statement = statement.values(attempts=Delivery.attempts + 1, next_attempt_at=DatabaseTime(hold_seconds))
    taken = statement.returning(Delivery).execution_options(synchronize_session=False, populate_existing=True)
    return session.scalars(taken).one_or_none()


def sent(session: Session, delivery_id: str) -> None:
    """The message has arrived."""
    _change(session, delivery_id, status="sent", sent_at=DatabaseTime(), last_error=None)


def not_sent(session: Session, delivery_id: str, error: str, retry_seconds: float | None) -> None:
    """An attempt has failed: the next one is in `retry_seconds`; None: the message is given up."""
    again = {"status": "failed"} if retry_seconds is None else {"next_attempt_at": DatabaseTime(retry_seconds)}
    _change(session, delivery_id, last_error=error[:LONGEST_ERROR], **again)


def postpone(session: Session, channel: str, target: str | None, seconds: float) -> None:
    """Nothing else is sent to a target (None: by the channel) for so long, as nobody answers there; that counts as no
    attempt."""
    later = DatabaseTime(seconds)
    statement = update(Delivery).where(Delivery.status == "pending", Delivery.next_attempt_at <= DatabaseTime())
    statement = statement.where(Delivery.channel == channel).values(next_attempt_at=later)
    if target is not None:
        statement = statement.where(Delivery.target == target)
    session.execute(statement.execution_options(synchronize_session=False))


def page(session: Session, schedule_id: str, *, after: Cursor | None = None, limit: int = 50) -> Page[Delivery]:
    """A page of a schedule's messages, newest first."""
    statement = select(Delivery).where(Delivery.schedule_id == schedule_id)
    when, key = Delivery.created_at.expression, Delivery.id.expression
    rows = list(session.scalars(keyset(statement, when, key, descending=True, after=after, limit=limit)))
    return page_of(rows, limit, lambda row: (row.created_at, row.id))


def _due(channel: str | None) -> Select[str]:
    due = select(Delivery.id).where(Delivery.status == "pending", Delivery.next_attempt_at <= DatabaseTime())
    return due if channel is None else due.where(Delivery.channel == channel)


def _change(session: Session, delivery_id: str, **values: Any) -> None:
    """Only of a message that is still to be sent: a slow sender must not undo what a later one has done."""
    statement = update(Delivery).where(Delivery.id == delivery_id, Delivery.status == "pending")
    statement = statement.values(checks.row(Delivery, values))
    session.execute(statement.execution_options(synchronize_session=False))

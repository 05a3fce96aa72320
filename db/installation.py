"""Facts about this installation that all its machines share, such as which store its files are in."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.models import Setting
from db.upserts import insert_into


def get(session: Session, key: str) -> Setting | None:
    """The fact, or None."""
    return session.scalars(select(Setting).where(Setting.key == key), execution_options=_FRESH).one_or_none()


def put_first(session: Session, key: str, value: Mapping[str, Any]) -> Setting:
    """Writes the fact unless there is one; gives the one that is there then."""
    values = checks.row(Setting, {"key": key, "value": dict(value), "updated_at": DatabaseTime()})
    session.execute(insert_into(session, Setting).values(**values).on_conflict_do_nothing(index_elements=["key"]))
    return session.scalars(select(Setting).where(Setting.key == key), execution_options=_FRESH).one()


def put(session: Session, key: str, value: Mapping[str, Any]) -> None:
    """Writes the fact, whatever was there."""
    values = checks.row(Setting, {"key": key, "value": dict(value), "updated_at": DatabaseTime()})
    changed = {"value": values["value"], "updated_at": DatabaseTime()}
    statement = insert_into(session, Setting).values(**values)
    session.execute(statement.on_conflict_do_update(index_elements=["key"], set_=changed))


def starting_with(session: Session, prefix: str) -> list[Setting]:
    """The facts whose keys begin so, in the order of their keys."""
    statement = select(Setting).where(Setting.key.startswith(prefix, autoescape=True)).order_by(Setting.key)
    return list(session.scalars(statement, execution_options=_FRESH))


def remove(session: Session, key: str) -> None:
    """Forgets the fact, if there is one."""
    session.execute(delete(Setting).where(Setting.key == key).execution_options(synchronize_session=False))


def replace(session: Session, key: str, value: Mapping[str, Any], *, since: datetime) -> bool:
    """Changes the fact if nobody has since the time of `updated_at` that the caller read; False when somebody has."""
    changed = session.execute(
        update(Setting)
        .where(Setting.key == key, Setting.updated_at == since)
        .values(checks.row(Setting, {"value": dict(value), "updated_at": DatabaseTime()}))
        .returning(Setting.key)
        .execution_options(synchronize_session=False)
    )
    return changed.scalar_one_or_none() is not None


_FRESH = {"populate_existing": True}

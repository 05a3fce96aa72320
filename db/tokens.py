"""API tokens: rows only. Making a secret and checking its digest is the service's work."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.errors import Conflict, NotFound
from db.models import Token
from db.upserts import insert_into


def create(
    session: Session, *, name: str, prefix: str, hash: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> Token:
    """Keeps a token. Raises Conflict when the name or the prefix is taken."""
    values = {"name": name, "prefix": prefix, "hash": hash, "scopes": list(scopes), "expires_at": expires_at}
    statement = insert_into(session, Token).values(**checks.row(Token, values)).on_conflict_do_nothing()
    token = session.scalars(statement.returning(Token)).one_or_none()
    if token is None:
        raise Conflict(f"there is a token named {name!r} already")
    return token


def get(session: Session, token_id: str) -> Token:
    """The token. Raises NotFound."""
    token = session.scalars(select(Token).where(Token.id == token_id)).one_or_none()
    if token is None:
        raise NotFound("token", token_id)
    return token


def by_prefix(session: Session, prefix: str) -> Token | None:
    """The token of this prefix that is neither revoked nor expired by the database's clock."""
    alive = or_(Token.expires_at.is_(None), Token.expires_at > DatabaseTime())
    return session.scalars(select(Token).where(Token.prefix == prefix, Token.revoked_at.is_(None), alive)).one_or_none()


def all_of(session: Session) -> list[Token]:
    """All tokens by name, revoked and expired ones too."""
    return list(session.scalars(select(Token).order_by(Token.name)))


def touch(session: Session, token_id: str, *, every_seconds: float = 60.0) -> None:
    """Notes the use of a token, at most once per interval, so that reading does not write each time."""
    due = or_(Token.last_used_at.is_(None), Token.last_used_at <= DatabaseTime(-every_seconds))
    statement = update(Token).where(Token.id == token_id, due).values(last_used_at=DatabaseTime())
    session.execute(statement.execution_options(synchronize_session=False))


def revoke(session: Session, token_id: str) -> Token:
    """Ends a token for good; a repeated call changes nothing. Raises NotFound."""
    statement = update(Token).where(Token.id == token_id, Token.revoked_at.is_(None)).values(revoked_at=DatabaseTime())
    session.execute(statement.execution_options(synchronize_session=False))
    session.expire_all()
    return get(session, token_id)

"""A POST that a client repeats is done once, and answered the same.

Begin, do the work and finish in one transaction where that is possible: then a process that dies in the middle
leaves nothing behind, and a repeat that comes at the same moment waits for the first one and gets its answer.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.models import IdempotencyKey
from db.upserts import insert_into

IN_FLIGHT_SECONDS = 60.0  # after this an unfinished request is given up for dead
KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class New:
    """Nobody has used the key: do the work, then call `finish`."""


@dataclass(frozen=True)
class Replay:
    """The work was done: give this answer again."""

    status: int
    body: Any


@dataclass(frozen=True)
class InFlight:
    """Another request with the key is at work."""


@dataclass(frozen=True)
class Mismatch:
    """The key was used for another payload."""


def begin(
    session: Session, scope: str, key: str, payload_hash: str, *, in_flight_seconds: float = IN_FLIGHT_SECONDS
) -> New | Replay | InFlight | Mismatch:
    """Takes the key in its scope (who asks, and what for), or says what has become of it."""
    values = {
        "scope": scope,
        "key": key,
        "payload_hash": payload_hash,
        "status": "in_flight",
        "expires_at": DatabaseTime(in_flight_seconds),
    }
    statement = insert_into(session, IdempotencyKey).values(**checks.row(IdempotencyKey, values))
    fresh = {name: statement.excluded[name] for name in ("payload_hash", "status", "created_at", "expires_at")}
    taken = statement.on_conflict_do_update(
        index_elements=["scope", "key"],
        set_={**fresh, "response_status": None, "response_body": None},
        where=IdempotencyKey.expires_at <= DatabaseTime(),
    ).returning(IdempotencyKey.key)
    if session.execute(taken).scalar_one_or_none() is not None:
        return New()
    known = session.scalars(
        select(IdempotencyKey).where(IdempotencyKey.scope == scope, IdempotencyKey.key == key),
        execution_options={"populate_existing": True},
    ).one()
    if known.payload_hash != payload_hash:
        return Mismatch()
    if known.status == "in_flight" or known.response_status is None:
        return InFlight()
    return Replay(known.response_status, known.response_body)


def finish(
    session: Session, scope: str, key: str, *, status: int, body: Any, kept_seconds: float = KEPT_SECONDS
) -> None:
    """Keeps the answer for repeats. `body` is what JSON can hold."""
    answer = {"status": "done", "response_status": status, "response_body": body}
    session.execute(
        update(IdempotencyKey)
        .where(IdempotencyKey.scope == scope, IdempotencyKey.key == key)
        .values(checks.row(IdempotencyKey, answer))
        .values(expires_at=DatabaseTime(kept_seconds))
        .execution_options(synchronize_session=False)
    )


def forget(session: Session, scope: str, key: str) -> None:
    """Frees a key whose request failed without an effect, so that a repeat is tried again."""
    statement = delete(IdempotencyKey).where(IdempotencyKey.scope == scope, IdempotencyKey.key == key)
    session.execute(statement.execution_options(synchronize_session=False))


def remove_expired(session: Session) -> int:
    """Deletes keys past their time and returns how many there were."""
    statement = delete(IdempotencyKey).where(IdempotencyKey.expires_at <= DatabaseTime())
    gone = session.execute(statement.returning(IdempotencyKey.key).execution_options(synchronize_session=False))
    return len(gone.all())

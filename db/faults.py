"""Which errors of the drivers mean that the database is away, busy or full, on both databases."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.errors import DatabaseUnavailable

# PostgreSQL: serialization failure, deadlock, lock not available, statement cancelled by a time-out,
# idle transaction ended, shutting down, crashed, starting, too many connections
_TRANSIENT_STATES = frozenset(
    {"40001", "40P01", "55P03", "57014", "25P03", "57P01", "57P02", "57P03", "57P05", "53300"}
)
_LASTING_STATES = frozenset({"53100", "53200", "25006", "58030"})  # disk full, out of memory, read-only, I/O error
_CONNECTION_CLASS = "08"

_TRANSIENT_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_LASTING_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOTADB}
)


@contextmanager
def translated() -> Iterator[None]:
    """Turns a driver's error into DatabaseUnavailable where the database, not the statement, is to blame."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable("no free connection to the database", transient=True) from error
    except DBAPIError as error:
        transient = _is_transient(error)
        if transient is None:
            raise
        raise DatabaseUnavailable(f"the database is unavailable: {error.orig}", transient=transient) from error


def _is_transient(error: DBAPIError) -> bool | None:
    """Whether waiting may help; None when the statement is to blame."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None:
            return None
        primary = code & 0xFF  # extended codes carry the primary one in their low byte
        return True if primary in _TRANSIENT_CODES else False if primary in _LASTING_CODES else None
    if isinstance(cause, psycopg.Error):
        return _postgresql_is_transient(cause, disconnected=error.connection_invalidated)
    return None


def _postgresql_is_transient(cause: psycopg.Error, *, disconnected: bool) -> bool | None:
    state = cause.sqlstate
    if state in _LASTING_STATES:
        return False
    if disconnected or (state is not None and (state in _TRANSIENT_STATES or state.startswith(_CONNECTION_CLASS))):
        return True
    # a connection that failed or broke carries no state
    return True if state is None and isinstance(cause, psycopg.OperationalError) else None

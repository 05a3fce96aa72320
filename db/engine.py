"""Engines and sessions for SQLite and PostgreSQL, and what to do when the database is away.

Measured reasons: `SKIP LOCKED` compiles to nothing on SQLite, so writers there take the write lock at BEGIN; SQLite
before 3.51.3 can corrupt a WAL database that several processes write, so it keeps the rollback journal; a commit's
acknowledgement can be lost, so every write of this package is safe to repeat.
"""

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from db.clock import DatabaseTime
from db.errors import DatabaseUnavailable
from db.faults import translated

T = TypeVar("T")

BUSY_SECONDS = 5.0  # how long a writer waits for another before it gives up
WAL_SAFE_SINCE = (3, 51, 3)
_READS = "attune_reads"
_DISPOSALS = "attune_disposals"


def make_engine(url: str | URL, *, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """An engine for `sqlite:///FILE` (its folder is created) or `postgresql://…`. Connects on first use.

    Raises ValueError for other databases and for SQLite in memory, which several processes cannot share.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        engine = _sqlite_engine(parsed, busy_seconds)
    elif backend in ("postgresql", "postgres"):
        engine = _postgresql_engine(parsed, busy_seconds)
    else:
        raise ValueError(f"{backend}: not a database attune knows; valid: postgresql, sqlite")
    _close_when_returned_late(engine)
    return engine


def _close_when_returned_late(engine: Engine) -> None:
    """Connections in use while the engine is disposed of go back to a pool that nobody closes: close them then."""
    disposals = 0

    def connects(_dialect: object, record: ConnectionPoolEntry, *_arguments: object) -> None:
        record.info[_DISPOSALS] = disposals  # before it connects, which may take seconds

    def returned(_connection: object, record: ConnectionPoolEntry) -> None:
        if record.info.get(_DISPOSALS) != disposals:
            record.invalidate()

    def disposed(_engine: Engine) -> None:
        nonlocal disposals
        disposals += 1

    event.listen(engine, "do_connect", connects)
    event.listen(engine, "checkin", returned)
    event.listen(engine, "engine_disposed", disposed)


def _sqlite_engine(url: URL, busy_seconds: float) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ValueError("SQLite needs a file: several processes share the database")
    Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(
        url,
        connect_args={"timeout": busy_seconds},
        json_serializer=_to_json,
        pool_size=5,
        max_overflow=35,
        pool_timeout=busy_seconds,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql_engine(url: URL, busy_seconds: float) -> Engine:
    # A stopped process must not hold a row for ever: nobody could take its search over.
    limits = f"-c lock_timeout={int(busy_seconds * 1000)} -c idle_in_transaction_session_timeout=15000"
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": 5,
            "options": limits,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        },
        json_serializer=_to_json,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=15,
        pool_timeout=busy_seconds,
    )


def _to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin in _begin_sqlite, not inside the driver
    connection.execute("PRAGMA foreign_keys = ON")
    wanted = "wal" if sqlite3.sqlite_version_info >= WAL_SAFE_SINCE else "delete"
    # Only ask for a change that is needed: changing takes an exclusive lock.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != wanted:
        connection.execute(f"PRAGMA journal_mode = {wanted}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reads else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees one state of the database and cannot write. Raises DatabaseUnavailable."""
    options: dict[str, Any] = {_READS: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with translated(), Session(engine.execution_options(**options), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session whose changes are committed together at the end, or not at all. Raises DatabaseUnavailable."""
    with translated(), Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def retrying(
    engine: Engine,
    work: Callable[[Session], T],
    *,
    attempts: int = 8,
    first_delay: float = 0.05,
    longest_delay: float = 2.0,
    jitter: random.Random | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """The result of `work(session)`, run in `writing` and repeated while the database is away or locked.

    `work` may run more than once, also after a commit whose acknowledgement was lost. Raises DatabaseUnavailable
    after the last attempt. Delays double from `first_delay` to `longest_delay` seconds, shortened by up to a half.
    """
    spread = jitter or random.Random()
    for attempt in range(1, attempts + 1):
        try:
            with writing(engine) as session:
                return work(session)
        except DatabaseUnavailable as error:
            if not error.transient or attempt == attempts:
                raise
            sleep(min(longest_delay, first_delay * 2 ** (attempt - 1)) * (1 - spread.random() / 2))
    raise ValueError(f"attempts must be at least 1, not {attempts}")


def now(session: Session) -> datetime:
    """The database's clock, UTC."""
    return session.execute(select(DatabaseTime())).scalar_one()

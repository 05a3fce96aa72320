import random
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from db import searches
from db.clock import DatabaseTime
from db.engine import WAL_SAFE_SINCE, make_engine, now, reading, retrying, writing
from db.errors import DatabaseUnavailable
from db.models import Search
from db.settings import DatabaseSettings

_INSERT_EVENT = (
    "INSERT INTO events (id, search_id, seq, kind, data, at) SELECT 'x', '{}', 1, 'k', '{{}}', created_at FROM searches"
)


def test_only_known_databases_and_files() -> None:
    with pytest.raises(ValueError, match="valid: postgresql, sqlite"):
        make_engine("mysql://x/y")
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ValueError, match="needs a file"):
            make_engine(url)


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ATTUNE_DATABASE_URL", raising=False)
    monkeypatch.setenv("ATTUNE_HOME", str(tmp_path))
    assert DatabaseSettings().url == f"sqlite:///{tmp_path}/attune.db"
    monkeypatch.setenv("ATTUNE_DATABASE_URL", "postgresql://u:secret@h/d")
    settings = DatabaseSettings()
    assert settings.url == "postgresql://u:secret@h/d"
    assert "secret" not in repr(settings)


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/new/folder/a.db")
    with writing(engine) as session:
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        wanted = "wal" if sqlite3.sqlite_version_info >= WAL_SAFE_SINCE else "delete"
        assert session.scalar(text("PRAGMA journal_mode")) == wanted
        assert session.scalar(text("PRAGMA synchronous")) == 2
    engine.dispose()


def test_reading_cannot_write_and_writing_still_can(engine: Engine, queued: Callable[..., Search]) -> None:
    search = queued()
    with reading(engine) as session, pytest.raises(DBAPIError, match=r"readonly|read-only"):
        session.execute(text("UPDATE searches SET name = 'other'"))
    with writing(engine) as session:
        session.execute(text("UPDATE searches SET priority = 9"))
    with reading(engine) as session:
        found = searches.get(session, search.id)
    assert (found.name, found.priority) == ("search", 9)


def test_reading_sees_one_state(engine: Engine, queued: Callable[..., Search]) -> None:
    if engine.dialect.name == "sqlite" and sqlite3.sqlite_version_info < WAL_SAFE_SINCE:
        pytest.skip("with the rollback journal a reader makes the writer wait")
    queued("a")
    with reading(engine) as session:
        assert len(searches.page(session).items) == 1
        queued("b")
        assert len(searches.page(session).items) == 1


def test_an_exception_rolls_back(engine: Engine) -> None:
    def fail() -> None:
        with writing(engine) as session:
            searches.create(session, name="x", spec={}, spec_version=1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with reading(engine) as session:
        assert searches.page(session).items == []


def test_checks_and_foreign_keys_hold(engine: Engine, queued: Callable[..., Search]) -> None:
    search = queued()
    for statement in (
        "UPDATE searches SET status = 'done'",
        "UPDATE searches SET status = 'failed'",  # without finished_at
        "UPDATE searches SET priority = 10",
        "UPDATE searches SET schedule_id = 'nobody'",
        _INSERT_EVENT.format("nobody"),
        _INSERT_EVENT.format(search.id),  # number 1 is taken
    ):
        with pytest.raises(IntegrityError), writing(engine) as session:
            session.execute(text(statement))


def test_database_clock(engine: Engine) -> None:
    with reading(engine) as session:
        clock = now(session)
        later, earlier = session.execute(select(DatabaseTime(90.5), DatabaseTime(-3600))).one()
    assert clock.utcoffset() == timedelta(0)
    assert abs((clock - datetime.now(UTC)).total_seconds()) < 5
    assert abs((later - clock).total_seconds() - 90.5) < 1
    assert abs((clock - earlier).total_seconds() - 3600) < 1


def test_times_keep_their_moment_and_need_a_zone(engine: Engine) -> None:
    moment = datetime(2026, 10, 25, 2, 30, 1, 5, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    with writing(engine) as session:
        made = searches.create(session, name="x", spec={}, spec_version=1, fire_at=moment)
        assert searches.get(session, made.id).fire_at == moment
    with pytest.raises(Exception, match="without a zone"), writing(engine) as session:
        searches.create(session, name="x", spec={}, spec_version=1, fire_at=moment.replace(tzinfo=None))


def test_retrying_rides_out_a_lock(engine: Engine, database_url: str, queued: Callable[..., Search]) -> None:
    search = queued()
    impatient = make_engine(database_url, busy_seconds=0.1)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with writing(engine) as session:
            searches.lock(session, search.id)
            held.set()
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            release.set()
            holder.join(10)

    with pytest.raises(DatabaseUnavailable) as caught, writing(impatient) as session:
        searches.lock(session, search.id)
    assert caught.value.transient
    done = retrying(
        impatient, lambda session: searches.edit(session, search.id, priority=1), sleep=sleep, jitter=random.Random(0)
    )
    assert done.priority == 1
    assert len(waits) == 2
    assert 0.025 <= waits[0] <= 0.05
    assert 0.05 <= waits[1] <= 0.1
    impatient.dispose()


def test_retrying_gives_up_and_passes_other_errors_on(engine: Engine) -> None:
    calls: list[int] = []

    def away(_: object) -> None:
        calls.append(1)
        raise DatabaseUnavailable("away", transient=len(calls) < 10)

    with pytest.raises(DatabaseUnavailable):
        retrying(engine, away, attempts=3, sleep=lambda _: None)
    assert len(calls) == 3
    with pytest.raises(DatabaseUnavailable):
        retrying(engine, away, attempts=50, sleep=lambda _: None)
    assert len(calls) == 10  # not transient any more
    with pytest.raises(IntegrityError):
        retrying(engine, lambda session: session.execute(text("INSERT INTO nodes (id) VALUES (NULL)")))


def test_lost_connections_are_ridden_out(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no connections to lose")
    calls: list[int] = []

    def work(session: object) -> int:
        calls.append(1)
        if len(calls) == 1:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))  # type: ignore[attr-defined]
        return len(calls)

    assert retrying(engine, work, sleep=lambda _: None) == 2


def test_database_that_is_away_says_so(tmp_path: Path) -> None:
    engine = make_engine(f"postgresql://nobody@/x?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable) as caught, reading(engine) as session:
        now(session)
    assert caught.value.transient


def test_full_disk_is_unavailable_and_leaves_no_partial_row(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PRAGMA max_page_count is SQLite's")

    def fill() -> None:
        with writing(engine) as session:
            session.execute(text("PRAGMA max_page_count = 1"))
            for index in range(2000):
                searches.create(session, name=f"s{index}", spec={"x": "y" * 1000}, spec_version=1)

    with pytest.raises(DatabaseUnavailable) as caught:
        fill()
    assert not caught.value.transient
    engine.dispose()
    with reading(engine) as session:
        assert searches.page(session).items == []


def test_connection_returned_after_disposal_is_closed(engine: Engine) -> None:
    with engine.connect() as connection:
        held = connection.connection.driver_connection
        engine.dispose()
    with pytest.raises((psycopg.OperationalError, sqlite3.ProgrammingError), match=r"closed"):
        held.execute("SELECT 1")  # type: ignore[union-attr]
    with reading(engine) as session:  # the engine itself goes on
        assert searches.page(session).items == []

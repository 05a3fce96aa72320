import re
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from db.engine import make_engine, writing
from db.models import Base
from db.upgrades import downgrade, is_current, upgrade


@pytest.fixture
def empty(empty_database_url: str) -> Engine:
    return make_engine(empty_database_url)


def _definitions(engine: Engine) -> set[str]:
    """What the database itself says of its tables, indexes and constraints, in its own words."""
    if engine.dialect.name == "sqlite":
        statements = ["SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"]
    else:
        statements = [
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
            "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace",
            "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable || ' '"
            " || coalesce(character_maximum_length::text, '') FROM information_schema.columns"
            " WHERE table_schema = 'public'",
        ]
    with engine.connect() as connection:
        found = [row[0] for statement in statements for row in connection.execute(text(statement))]
    # a table of SQLite is compared column by column: their order in the text is of no interest
    parts = [re.sub(r"\s+", " ", line).strip() for line in found if "alembic_version" not in line]
    return {part for line in parts for part in ([line] if not line.startswith("CREATE TABLE") else _pieces(line))}


def _pieces(create_table: str) -> list[str]:
    name, _, body = create_table.partition(" (")
    depth, piece, pieces = 0, "", []
    for letter in body.rstrip(") "):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            pieces.append(piece)
            piece = ""
        else:
            piece += letter
    return [f"{name}: {part.strip().rstrip(')')}" for part in [*pieces, piece]]


def _comparable(engine: Engine) -> Callable[..., bool]:
    def decide(thing: object, name: str | None, kind: str, reflected: bool, compared: object) -> bool:
        # Alembic cannot compare an index with a descending column on SQLite; the definitions below are compared
        return not (engine.dialect.name == "sqlite" and kind == "index" and name == "ix_searches_claimable")

    return decide


def test_models_and_migrations_agree(empty: Engine) -> None:
    upgrade(empty)
    with empty.connect() as connection, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="autogenerate skipping metadata-specified expression-based index")
        options = {"compare_type": True, "include_object": _comparable(empty)}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
    migrated = _definitions(empty)
    downgrade(empty)
    Base.metadata.create_all(empty)
    assert migrated == _definitions(empty)
    empty.dispose()


def test_upgrade_downgrade_upgrade(empty: Engine) -> None:
    assert not is_current(empty)
    for _ in range(2):
        upgrade(empty)
        assert is_current(empty)
        assert set(inspect(empty).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
        downgrade(empty)
        assert not is_current(empty)
        assert inspect(empty).get_table_names() == ["alembic_version"]
    empty.dispose()


def test_several_processes_may_upgrade_at_once(empty_database_url: str) -> None:
    barrier = threading.Barrier(4)

    def run(_: int) -> bool:
        engine = make_engine(empty_database_url, busy_seconds=20.0)
        barrier.wait()
        upgrade(engine)
        engine.dispose()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))
    engine = make_engine(empty_database_url)
    assert is_current(engine)
    engine.dispose()


def test_failed_migration_leaves_nothing(empty: Engine) -> None:
    with writing(empty) as session:
        session.execute(text("CREATE TABLE trials (id INTEGER)"))  # in the way of the migration
    with pytest.raises(Exception, match="already exists"):
        upgrade(empty)
    assert inspect(empty).get_table_names() == ["trials"]
    empty.dispose()

"""The schema's version: bring a database up to date, or say whether it is."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from db.engine import reading
from db.faults import translated

_UPGRADE_LOCK = 0x617474756E65  # "attune": any number that nobody else uses


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Runs the missing migrations, all or none. Safe to call from several processes at once."""
    with translated(), engine.begin() as connection:
        _take_turns(connection)
        command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str = "base") -> None:
    """Takes migrations back; `base` drops every table."""
    with translated(), engine.begin() as connection:
        _take_turns(connection)
        command.downgrade(_config(connection), revision)


def is_current(engine: Engine) -> bool:
    """Whether the schema is the one that this code knows."""
    with reading(engine) as session:
        found = MigrationContext.configure(session.connection()).get_current_heads()
    return set(found) == set(ScriptDirectory.from_config(_config(None)).get_heads())


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _take_turns(connection: Connection) -> None:
    """SQLite's BEGIN IMMEDIATE is a lock already; PostgreSQL needs one that lasts until the commit."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})

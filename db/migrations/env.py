"""Alembic's entry: runs the migrations on the connection that `db.upgrades` hands over."""

from alembic import context
from sqlalchemy import Connection

from db.models import Base


def _run(connection: Connection) -> None:
    # SQLite's DDL is transactional once BEGIN is sent explicitly, as this package's engines do
    context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])

"""Whether the database can still take something in."""

import secrets

from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session

from db.clock import DatabaseTime
from db.faults import translated
from db.ids import uuid7
from db.models import Setting

FILLER_BYTES = 4_000
"""In hexadecimal more than a page of SQLite, so that a database which cannot grow says so."""


def check_room(engine: Engine) -> None:
    """Writes a row and takes it back. Raises DatabaseUnavailable, not transient when the disk is full."""
    value = {"filler": secrets.token_hex(FILLER_BYTES)}
    with translated(), Session(engine) as session:
        row = {"key": f"probe {uuid7()}", "value": value, "updated_at": DatabaseTime()}
        session.execute(insert(Setting).values(**row))
        session.rollback()

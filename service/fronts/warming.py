"""The first look at a long search is as quick as any later one: its trials are read when the service starts."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, select

from db.engine import reading
from db.errors import DatabaseUnavailable
from db.models import Search
from service.errors import log_outage
from service.fronts.columns import columns
from service.fronts.logic import bounds_of, default_metrics, objectives
from service.fronts.pictures import draw

LONG = 4_000
"""Events, two or more for each trial; shorter searches are read in a few milliseconds when they are asked for."""
MOST = 8


def read_longest(engine: Engine, stopped: Callable[[], bool]) -> None:
    """Keeps the columns and the front of the latest long searches. stopped: whether to leave it at that."""
    statement = select(Search.id).where(Search.event_seq >= LONG).order_by(Search.id.desc()).limit(MOST)
    try:
        with reading(engine) as session:
            found = list(session.scalars(statement))
        for search_id in found:
            if stopped():
                return
            with reading(engine) as session:  # each in a read of its own: without a WAL, SQLite's writers wait for it
                search = session.get(Search, search_id)
                if search is not None:
                    names = default_metrics(search)
                    draw(columns(session, search, names), objectives(names), bounds_of(search))
    except DatabaseUnavailable as error:
        log_outage(error)

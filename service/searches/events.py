"""A search's events as a stream (WHATWG HTML, section 9.2), read from the database and resumable.

Nothing is held while waiting: each look at the database is a short read of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from db import events, searches
from db.engine import reading
from db.errors import DatabaseUnavailable, NotFound
from db.models import Event
from service.errors import bad_field
from service.queries import is_number
from service.state import Service

BATCH = 500
HEARTBEAT = b": waiting\n\n"


@dataclass(frozen=True)
class Look:
    """One look at the database. ended: the search has ended and `found` holds its last event."""

    found: list[Event]
    status: str
    ended: bool


def resume_point(house: Service, search_id: str, last_event_id: str | None, after: int | None) -> tuple[int, bool]:
    """The number of the last event that the client has, and whether nothing can follow it.

    Raises NotFound, and ApiError 400 for a number that the search has not reached.
    """
    if last_event_id is not None and not is_number(last_event_id):
        raise bad_field(400, "Last-Event-ID", "Last-Event-ID is not the number of an event.")
    field = "after" if last_event_id is None else "Last-Event-ID"
    number = (after or 0) if last_event_id is None else int(last_event_id)
    with reading(house.engine) as session:
        search = searches.get(session, search_id)
    if number > search.event_seq:
        raise bad_field(400, field, f"{field} is beyond the search's last event.")
    return number, search.finished and number == search.event_seq


async def stream(house: Service, request: Request, search_id: str, after: int) -> AsyncIterator[bytes]:
    """Every event above `after`, then new ones as they come, until the search has ended or the client leaves."""
    told = time.monotonic()
    with house.metrics.streams.track_inprogress():
        while not house.stopping.is_set() and not await request.is_disconnected():
            try:
                look = await run_in_threadpool(_look, house, search_id, after)
            except NotFound:
                yield encoded("end", {"status": "deleted"}, after)
                return
            except DatabaseUnavailable:
                look = Look([], "unknown", ended=False)  # the client keeps its stream, and nothing is lost
            for event in look.found:
                after, told = event.seq, time.monotonic()
                yield encoded(event.kind, {**event.data, "at": event.at.isoformat()}, event.seq)
            if look.ended:
                yield encoded("end", {"status": look.status}, after)
                return
            if time.monotonic() - told >= house.settings.heartbeat_seconds:
                told = time.monotonic()
                yield HEARTBEAT
            if len(look.found) < BATCH:
                await _wait(house)


def encoded(kind: str, data: dict[str, Any], number: int) -> bytes:
    """One event in the stream's format."""
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()


def _look(house: Service, search_id: str, after: int) -> Look:
    with reading(house.engine) as session:
        search = searches.get(session, search_id)
        found = events.after(session, search_id, after, BATCH) if search.event_seq > after else []
        last = found[-1].seq if found else after
        return Look(found, search.status, search.finished and last >= search.event_seq)


async def _wait(house: Service) -> None:
    """Until the next look, or until the process is to stop."""
    try:
        await asyncio.wait_for(house.stopping.wait(), house.settings.event_poll_seconds)
    except TimeoutError:
        return

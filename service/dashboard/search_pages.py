"""One search: its page, the parts of it that change, what its plots draw, and its trials as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import Engine
from starlette.responses import JSONResponse, Response, StreamingResponse

from db import searches
from db.engine import reading
from search.metrics import METRICS
from service.dashboard import events, plots, report, table, views
from service.dashboard.rendering import page
from service.dashboard.routing import address, make_router
from service.effects import logic as effects
from service.errors import bad_field
from service.fronts.logic import MEASURED
from service.queries import CursorText, is_number
from service.state import House, SearchId, TrialId

router = make_router()
Text = Annotated[str | None, Query(max_length=300)]
Shown = Annotated[str | None, Query(max_length=2000, description="State of the page that only its scripts read.")]


@router.get("/searches/{search_id}")
def show_search(
    house: House, search_id: SearchId, cursor: CursorText = None, cols: Text = None, sort: Text = None,
    status: Text = None, role: Text = None, x: Shown = None, y: Shown = None, log: Shown = None, sel: Shown = None,
    heat: Shown = None, factor: Shown = None, worth: Shown = None, curve: Shown = None, over: Shown = None,
    published: Shown = None,
) -> Response:  # fmt: skip
    """One search."""
    view = table.View.read(cols, sort, status, role)
    return page("search.html", **_head(house, search_id), **_table(house, search_id, view, cursor))


@router.get("/live/searches/{search_id}")
def show_search_live(house: House, search_id: SearchId) -> Response:
    """The part of a search's page that changes with every trial."""
    return page("search_live.html", **_head(house, search_id))


@router.get("/searches/{search_id}/report")
def show_report(house: House, search_id: SearchId) -> Response:
    """A search to be printed."""
    with reading(house.engine) as session:
        told = effects.make(session, search_id)
    return page("report.html", **_head(house, search_id), worth=report.worth(told), used=report.used(told))


@router.get("/live/searches/{search_id}/trials")
def show_trials(
    house: House, search_id: SearchId, cursor: CursorText = None, cols: Text = None, sort: Text = None,
    status: Text = None, role: Text = None,
) -> Response:  # fmt: skip
    """The table of trials."""
    return page("trials.html", **_table(house, search_id, table.View.read(cols, sort, status, role), cursor))


def _head(house: House, search_id: str) -> dict[str, Any]:
    with reading(house.engine) as session:
        view = views.search_view(session, search_id)
    return {
        "page": "search", "active": view.active, "live_url": f"/live/searches/{search_id}",
        "metrics": list((METRICS | MEASURED).values()), **vars(view),
    }  # fmt: skip


def _table(house: House, search_id: str, view: table.View, cursor: str | None) -> dict[str, Any]:
    order = {
        "list": "dashboard.trials",
        "search": search_id,
        "sort": view.sort,
        "status": view.status,
        "role": view.role,
    }
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        shape = views.shape_of(session, searches.get(session, search_id))
        lines, older = views.trials_view(session, search_id, view, after, shape)
    path, query = f"/live/searches/{search_id}/trials", view.query()
    further = house.cursors.write(older, order)
    return {
        "search_id": search_id, "table": view, "columns": table.COLUMNS, "lines": lines, "paged": cursor is not None,
        "trials_url": address(path, query | ({} if cursor is None else {"cursor": cursor})),
        "first_url": address(path, query),
        "older_url": None if further is None else address(path, query | {"cursor": further}),
        "query": query, "address": address,
    }  # fmt: skip


@router.get("/live/searches/{search_id}/events")
def show_events(house: House, search_id: SearchId, before: Annotated[int | None, Query(ge=1)] = None) -> Response:
    """What has happened, newest first."""
    with reading(house.engine) as session:
        found = events.latest(session, search_id, before)
    return page("events.html", search_id=search_id, **vars(found))


@router.get("/live/trials/{trial_id}")
def show_trial_tip(house: House, trial_id: TrialId) -> Response:
    """What a plot shows beside a point."""
    with reading(house.engine) as session:
        row = views.trial_row(session, trial_id)
    return page("tip.html", row=row)


@router.get("/live/searches/{search_id}/tips/{number}")
def show_numbered_tip(house: House, search_id: SearchId, number: int) -> Response:
    """The same for the trial of a number."""
    with reading(house.engine) as session:
        row = views.trial_row(session, views.numbered(session, search_id, number))
    return page("tip.html", row=row)


@router.get("/live/searches/{search_id}/paths")
def get_paths(house: House, search_id: SearchId) -> Response:
    """What the parallel coordinates draw."""
    with reading(house.engine) as session:
        return JSONResponse(plots.paths(session, search_id))


@router.get("/live/searches/{search_id}/curves")
def get_curves(house: House, search_id: SearchId, numbers: Text = None) -> Response:
    """Learning curves of the trials with these numbers, comma-separated."""
    wanted = numbers.split(",") if numbers else []
    if not all(map(is_number, wanted)):
        raise bad_field(422, "numbers", "Not numbers of trials.")
    with reading(house.engine) as session:
        return JSONResponse(plots.curves(session, search_id, [int(number) for number in wanted]))


@router.get("/searches/{search_id}/trials.csv")
def get_csv(house: House, search_id: SearchId, sort: Text = None, status: Text = None, role: Text = None) -> Response:
    """The trials as the table filters and sorts them, all pages."""
    return _file(house, search_id, table.View.read(None, sort, status, role), table.as_csv, "csv", "text/csv")


@router.get("/searches/{search_id}/trials.parquet")
def get_parquet(
    house: House, search_id: SearchId, sort: Text = None, status: Text = None, role: Text = None
) -> Response:
    """The same for columnar tools."""
    kind = "application/vnd.apache.parquet"
    return _file(house, search_id, table.View.read(None, sort, status, role), table.as_parquet, "parquet", kind)


Writer = Callable[[Engine, str, table.View], Iterator[bytes]]


def _file(house: House, search_id: str, view: table.View, write: Writer, suffix: str, kind: str) -> Response:
    with reading(house.engine) as session:
        searches.get(session, search_id)  # a 404 before the first byte
    headers = {"Content-Disposition": f'attachment; filename="attune-{search_id}.{suffix}"'}
    return StreamingResponse(write(house.engine, search_id, view), 200, headers, kind)

"""The dashboard's pages. `router` joins the application; writes go through the REST API, from the pages' scripts."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import Header, Query
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import searches
from db.engine import reading
from db.models import SEARCH_STATUSES, Search
from db.paging import Page
from service.auth import public
from service.dashboard import (
    assets,
    cluster_pages,
    compare_pages,
    examples,
    new_pages,
    schedule_pages,
    search_pages,
    trial_pages,
    views,
)
from service.dashboard.rendering import fragment, page
from service.dashboard.routing import IfNoneMatch, address, make_router
from service.queries import CursorText
from service.state import House

LIST_ORDER = {"list": "dashboard.searches"}
router = make_router()


Text = Annotated[str, Query(max_length=200)]


@router.get("/")
def show_searches(
    house: House, cursor: CursorText = None, status: Text = "", tag: Text = "", owner: Text = "", name: Text = "",
    sort: Text = "-created_at",
) -> Response:  # fmt: skip
    """The list of searches."""
    wanted = _known(views.Filter(status, tag, owner, name, sort))
    after = house.cursors.read(cursor, LIST_ORDER | asdict(wanted))
    with reading(house.engine) as session:
        found = views.search_page(session, wanted, after)
        return page("index.html", **_list(house, session, wanted, cursor, found))


@router.get("/live/searches")
def show_searches_live(
    house: House, cursor: CursorText = None, status: Text = "", tag: Text = "", owner: Text = "", name: Text = "",
    sort: Text = "-created_at", if_none_match: IfNoneMatch = None,
) -> Response:  # fmt: skip
    """The part of the list that changes; nothing is rendered for who has it as it is."""
    wanted = _known(views.Filter(status, tag, owner, name, sort))
    after = house.cursors.read(cursor, LIST_ORDER | asdict(wanted))
    with reading(house.engine) as session:
        found = views.search_page(session, wanted, after)
        return fragment(
            "searches.html",
            (wanted, cursor, views.state_of(found)),
            if_none_match,
            lambda: _list(house, session, wanted, cursor, found),
        )


def _list(
    house: House, session: Session, wanted: views.Filter, cursor: str | None, found: Page[Search]
) -> dict[str, Any]:
    """What the list shows."""
    cards = views.search_cards(session, found)
    usual = asdict(views.Filter())
    query = {key: value for key, value in asdict(wanted).items() if value != usual[key]}
    further = house.cursors.write(found.next, LIST_ORDER | asdict(wanted))
    return {
        "page": "searches",
        "cards": cards,
        "wanted": wanted,
        "small": views.SMALL,
        "statuses": SEARCH_STATUSES,
        "cursor": cursor,
        "older": None if further is None else address("/", query | {"cursor": further}),
        "active": any(card.search["status"] in views.ACTIVE for card in cards),
        "example": examples.text("demo"),
        "live_url": address("/live/searches", query | ({} if cursor is None else {"cursor": cursor})),
    }


def _known(wanted: views.Filter) -> views.Filter:
    """Without what an old address may say and nobody knows."""
    sort = wanted.sort if wanted.sort.removeprefix("-") in searches.SORTS else "-created_at"
    return replace(wanted, sort=sort, status=wanted.status if wanted.status in SEARCH_STATUSES else "")


@router.get("/live/example")
def show_example(house: House) -> Response:
    """The ready example as the JSON that POST /api/v1/searches takes."""
    return Response(examples.as_json("demo"), media_type="application/json")


@router.get("/static/{name}")
@public
def get_asset(
    name: str,
    if_none_match: IfNoneMatch = None,
    accept_encoding: Annotated[str, Header(max_length=500)] = "",
) -> Response:
    """A style sheet, a script or a picture; public, because the sign-in page needs them."""
    if name not in assets.names():
        raise HTTPException(404)
    asset = assets.load(name)
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if if_none_match is not None and asset.etag in if_none_match:
        return Response(status_code=304, headers=headers)
    if asset.packed is not None and "gzip" in accept_encoding:
        return Response(asset.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


for part in (search_pages, new_pages, trial_pages, compare_pages, cluster_pages, schedule_pages):
    router.include_router(part.router)

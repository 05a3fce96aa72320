"""The dashboard's pages. `router` joins the application; writes go through the REST API, from the pages' scripts."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header
from starlette.exceptions import HTTPException
from starlette.responses import Response

from db.engine import reading
from service.auth import public
from service.dashboard import assets, examples, new_pages, search_pages, views
from service.dashboard.rendering import page
from service.dashboard.routing import make_router
from service.queries import CursorText
from service.state import House

LIST_ORDER = {"list": "dashboard.searches"}
router = make_router()


@router.get("/")
def show_searches(house: House, cursor: CursorText = None) -> Response:
    """The list of searches."""
    return _searches(house, "index.html", cursor)


@router.get("/live/searches")
def show_searches_live(house: House, cursor: CursorText = None) -> Response:
    """The part of the list that changes."""
    return _searches(house, "searches.html", cursor)


def _searches(house: House, template: str, cursor: str | None) -> Response:
    after = house.cursors.read(cursor, LIST_ORDER)
    with reading(house.engine) as session:
        cards, older = views.search_cards(session, after)
    return page(
        template,
        page="searches",
        cards=cards,
        cursor=cursor,
        older=house.cursors.write(older, LIST_ORDER),
        active=any(card.search["status"] in views.ACTIVE for card in cards),
        example=examples.text("demo"),
        live_url=_with_cursor("/live/searches", cursor),
    )


@router.get("/live/example")
def show_example(house: House) -> Response:
    """The ready example as the JSON that POST /api/v1/searches takes."""
    return Response(examples.as_json("demo"), media_type="application/json")


@router.get("/static/{name}")
@public
def get_asset(
    name: str,
    if_none_match: Annotated[str | None, Header(max_length=200)] = None,
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


def _with_cursor(path: str, cursor: str | None) -> str:
    return path if cursor is None else f"{path}?cursor={cursor}"


for part in (search_pages, new_pages):
    router.include_router(part.router)

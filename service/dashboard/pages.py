"""The dashboard's pages. `router` joins the application; writes go through the REST API, from the pages' scripts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from db.engine import reading
from db.errors import NotFound
from service.auth import public
from service.dashboard import assets, examples, views
from service.dashboard.rendering import page
from service.errors import ApiError
from service.queries import CursorText
from service.state import House, SearchId, TrialId

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
LIST_ORDER = {"list": "dashboard.searches"}


class PageRoute(APIRoute):
    """A browser is told what is wrong by a page, not by JSON."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handler(request)
            except ApiError as error:
                if error.status == 401:
                    text = "Open the link that attune printed when it started, or enter its token."
                    return _message(401, "Sign in", text, login=True)
                return _message(error.status, "That did not work", error.detail)
            except (NotFound, RequestValidationError, HTTPException):
                return _message(
                    404, "Nothing is here", "The search may have been deleted, or its address is not complete."
                )

        return told


router = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


def _message(status: int, heading: str, text: str, login: bool = False) -> Response:
    return page("message.html", status, heading=heading, text=text, login=login, page="")


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


@router.get("/searches/{search_id}")
def show_search(house: House, search_id: SearchId, cursor: CursorText = None) -> Response:
    """One search."""
    return _search(house, "search.html", search_id, cursor)


@router.get("/live/searches/{search_id}")
def show_search_live(house: House, search_id: SearchId, cursor: CursorText = None) -> Response:
    """The part of a search's page that changes."""
    return _search(house, "search_live.html", search_id, cursor)


def _search(house: House, template: str, search_id: str, cursor: str | None) -> Response:
    order = {"list": "dashboard.trials", "search": search_id}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        view = views.search_view(session, search_id, after)
    return page(
        template,
        page="search",
        cursor=cursor,
        older=house.cursors.write(view.next, order),
        live_url=_with_cursor(f"/live/searches/{search_id}", cursor),
        active=view.active,
        **vars(view),
    )


@router.get("/live/trials/{trial_id}")
def show_trial_tip(house: House, trial_id: TrialId) -> Response:
    """What a plot shows beside a point."""
    with reading(house.engine) as session:
        row = views.trial_row(session, trial_id)
    return page("tip.html", row=row)


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

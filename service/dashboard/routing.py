"""What the dashboard's routers share: errors as pages, and the page of a message."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Header
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from db.errors import NotFound
from service.dashboard.rendering import page
from service.errors import ApiError

IfNoneMatch = Annotated[str | None, Header(max_length=200)]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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
                    return message(401, "Sign in", text, login=True, then=_asked_for(request))
                return message(error.status, "That did not work", error.detail)
            except (NotFound, RequestValidationError, HTTPException):
                return message(
                    404, "Nothing is here", "The search may have been deleted, or its address is not complete."
                )

        return told


def make_router() -> APIRouter:
    """A router of pages."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


def message(status: int, heading: str, text: str, *, login: bool = False, then: str = "/") -> Response:
    """A page with nothing but a message. then: where signing in leads."""
    return page("message.html", status, heading=heading, text=text, login=login, then=then, page="")


def address(path: str, query: Mapping[str, str]) -> str:
    """A path with its query."""
    return f"{path}?{urlencode(query)}" if query else path


def _asked_for(request: Request) -> str:
    """The page that was asked for; fragments are none."""
    path = request.url.path
    if path.startswith("/live/"):
        return "/"
    return quote(path) + (f"?{request.url.query}" if request.url.query else "")

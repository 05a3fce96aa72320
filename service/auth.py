"""Who may ask: a bearer token, or the signed cookie that /login gives a browser. Deny by default.

The check is a dependency of the application, so that every route has it; only endpoints marked `public` are let by.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from fastapi import APIRouter, Query
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.errors import ApiError
from service.hosts import address, is_loopback
from service.state import House

COOKIE = "attune_session"
SESSION_SECONDS = 7 * 24 * 3600
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_MARK = "__attune_public__"

E = TypeVar("E", bound=Callable[..., Any])
router = APIRouter(tags=["service"])


def public(endpoint: E) -> E:
    """Marks an endpoint that needs no token."""
    setattr(endpoint, _MARK, True)
    return endpoint


async def authorised(request: Request, house: House) -> None:
    """Lets a request by or raises ApiError: 401 without a valid token or session, 403 for a write of another site."""
    settings = house.settings
    by_token = _bearer(request) if settings.secret is not None else None
    if by_token is None:
        _refuse_other_sites(request)
    if getattr(request.scope.get("endpoint"), _MARK, False):
        return
    if settings.secret is None:
        _refuse_other_machines(request)
    elif by_token is not None:
        if not same(by_token, settings.secret):
            raise _denied("The token is not valid.")
    elif not _has_session(request, settings.secret):
        raise _denied("Send the token: Authorization: Bearer …; in a browser, open /login?token=… once.")


@router.get("/login", summary="A session for a browser", status_code=303, response_class=Response)
@public
async def login(
    request: Request,
    house: House,
    token: Annotated[str, Query(max_length=1000)] = "",
    next: Annotated[str, Query(max_length=3000, description="The page to go to; one of this service.")] = "/",
) -> Response:
    """Sets the session cookie and goes to the dashboard."""
    secret = house.settings.secret
    answer = RedirectResponse(next if is_own_path(next) else "/", status_code=303)
    if secret is None:
        return answer
    if not same(token, secret):
        raise _denied("The token is not valid.")
    session = _sessions(secret).dumps("browser")
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, session, max_age=SESSION_SECONDS, httponly=True, samesite="lax", secure=secure)
    return answer


def is_own_path(path: str) -> bool:
    """Whether `path` names a page of this service and can lead nowhere else, as //host and /\\host would."""
    return re.fullmatch(r"/(?![/\\])[!-\[\]-~]*", path) is not None


def same(given: str, secret: str) -> bool:
    """Equal, in a time that does not tell how much of it is."""
    return hmac.compare_digest(_digest(given), _digest(secret))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _bearer(request: Request) -> str | None:
    """The token of the Authorization header; "" for another scheme."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _has_session(request: Request, secret: str) -> bool:
    try:
        return bool(_sessions(secret).loads(request.cookies.get(COOKIE, ""), max_age=SESSION_SECONDS) == "browser")
    except BadData:
        return False


def _sessions(secret: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret, salt="attune.session")


def _refuse_other_sites(request: Request) -> None:
    """A page of another site can make a browser send requests with our cookie, or to a service without a token."""
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    foreign = origin is not None and not _is_own_origin(origin, request)
    if site not in ("same-origin", "none") or foreign:
        raise ApiError(403, "Changes are only accepted from this service's own pages.")


def _is_own_origin(origin: str, request: Request) -> bool:
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _refuse_other_machines(request: Request) -> None:
    """A server started by hand may listen further than its settings say."""
    server = request.scope.get("server")
    if server is not None and address(server[0]) is not None and not is_loopback(server[0]):
        raise ApiError(403, "This service listens beyond its machine without a token: set ATTUNE_TOKEN.")


def _denied(detail: str) -> ApiError:
    return ApiError(401, detail, headers={"WWW-Authenticate": 'Bearer realm="attune"'})

"""Around every request: the Host check, one log line, metrics, safe headers, and an answer to what nobody foresaw."""

from __future__ import annotations

import time
import traceback
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.ids import uuid7
from service import logs
from service.errors import problem_response
from service.hosts import address, host_name
from service.metrics import Metrics
from service.settings import ServiceSettings

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
FRAMES = 8


class Watch:
    """Outermost: counts, logs and gives each answer an id; an unforeseen error becomes a 500 problem with that id."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._log = logs.get("service")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began = uuid7(), time.monotonic()
        status = 499  # what a client that left before the answer leaves in the log

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "X-Request-Id": request_id}.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            self._log.error(
                "unexpected_error", request_id=request_id, error=type(error).__name__, frames=_frames(error)
            )
            if status != 499:
                raise
            detail = "Something went wrong that nobody foresaw; the log has more under this id."
            await problem_response(500, detail, id=request_id)(scope, receive, watched)
        finally:
            self._tell(scope, request_id, status, time.monotonic() - began)

    def _tell(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        # the route as it is written in the program and never the path, which may hold anything
        route = scope.get("route")
        operation, pattern = getattr(route, "name", None) or "none", getattr(route, "path", None) or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.answered(method, operation, status, seconds)
        self._log.info(
            "request", request_id=request_id, method=method, route=pattern, status=status, seconds=round(seconds, 4)
        )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _frames(error: Exception) -> list[str]:
    """Where it happened. The message is left out: it may quote a request, a password or SQL parameters."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


class HostCheck:
    """Answers 400 to a Host that is not ours, which ends DNS rebinding."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._hosts = settings.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._known(scope):
            await problem_response(400, "This service does not answer for that Host.")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, scope: MutableMapping[str, Any]) -> bool:
        if "*" in self._hosts:
            return True
        given = Headers(scope=scope).getlist("host")
        if len(given) != 1:
            return False
        host = host_name(given[0])
        return host in self._hosts or _is_own_address(host, scope)


def _is_own_address(host: str, scope: MutableMapping[str, Any]) -> bool:
    """A client that names the very address it reached (a probe of a cluster) cannot have been rebound."""
    server = scope.get("server")
    return server is not None and address(host) is not None and address(host) == address(server[0])

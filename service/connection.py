"""Requests to the REST API, repeated while the service is away or asks to wait: what the client stands on."""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from service.problems import LATER, AttuneError

Json = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8000"
LONGEST_WAIT = 30.0
"""Seconds that a service may ask to wait before the next attempt."""
LONGEST_PAUSE = 2.0
"""Seconds between attempts when it does not say; a service that restarts is noticed soon."""
PATIENCE = 60.0
"""Seconds for which a request that carries a key is repeated, and a stream waits for a service that restarts."""


class Connection:
    """url, token: default to ATTUNE_URL and ATTUNE_TOKEN. attempts: tries of one request; timeout: seconds each.

    patience: seconds for which a request that carries a key is repeated, beyond `attempts`. on_wait: called with the
    reason when such a request begins to wait for the service.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        attempts: int = 3,
        timeout: float = 30.0,
        patience: float = PATIENCE,
        on_wait: Callable[[AttuneError], object] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = (url or os.environ.get("ATTUNE_URL") or DEFAULT_URL).rstrip("/")
        token = token or os.environ.get("ATTUNE_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts}")
        self._attempts = attempts
        self._patience = patience
        self._on_wait = on_wait
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        except httpx.InvalidURL as error:
            raise AttuneError(f"ATTUNE_URL is not an address: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _once(self, path: str, body: Mapping[str, Any] | None, key: str | None) -> Json:
        """A POST that takes effect once, however often it is sent."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return self._json("POST", path, body=body, headers=headers, patience=self._patience)

    def _items(self, path: str, filters: Mapping[str, Any]) -> Iterator[Json]:
        params = present(dict(filters))
        while True:
            page = self._json("GET", path, params=params)
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            params["cursor"] = page["next_cursor"]

    def _json(self, method: str, path: str, **request: Any) -> Json:
        response = self._send(method, path, **request)
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise AttuneError(f"{self.url} answered, but not as attune does: is another service there?")
        return found

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
    ) -> httpx.Response:
        """The answer; repeats the request `attempts` times and at least for `patience` seconds while that may help."""
        content = None if body is None else _encoded(body)
        headers = dict(headers or {}) | ({} if body is None else {"Content-Type": "application/json"})
        deadline = time.monotonic() + patience
        attempt, told = 0, False
        while True:
            attempt += 1
            retry_after = None
            try:
                response = self._http.request(method, path, content=content, params=params, headers=headers)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                failure = self._unreachable(error)
                if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
                    raise failure from None
            else:
                if response.is_success:
                    return response
                failure = error_of(response)
                retry_after = response.headers.get("Retry-After")
                if response.status_code not in LATER and retry_after is None:
                    raise failure
            seconds = pause_seconds(attempt, retry_after)
            if attempt >= self._attempts and time.monotonic() + seconds > deadline:
                raise failure
            if attempt >= self._attempts and self._on_wait is not None and not told:
                told = True
                self._on_wait(failure)
            time.sleep(seconds)

    def _unreachable(self, error: Exception) -> AttuneError:
        reason = str(error) or type(error).__name__
        return AttuneError(
            f"No attune service answers at {self.url} ({reason}). Start one with `attune serve`, or set ATTUNE_URL."
        )


def present(fields: Json) -> Json:
    """The fields that are given."""
    return {name: value for name, value in fields.items() if value is not None}


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise AttuneError(f"The request cannot be written as JSON: {error}", status=400) from None


def error_of(response: httpx.Response) -> AttuneError:
    """The problem+json in an answer, for people."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    fallback = f"The service answered {response.status_code} {response.reason_phrase}".strip()
    message = problem.get("detail") or problem.get("title") or fallback
    found = problem.get("errors")
    return AttuneError(str(message), response.status_code, tuple(found) if isinstance(found, list) else ())


def pause_seconds(attempt: int, retry_after: str | None = None) -> float:
    """Seconds to wait: what the service asks for, else doubling from a quarter second, spread by chance."""
    if retry_after is not None and retry_after.isdigit():
        return min(LONGEST_WAIT, float(retry_after))
    doubled: float = 0.25 * 2.0 ** min(attempt, 10)
    return min(LONGEST_PAUSE, doubled) * random.uniform(0.5, 1.0)

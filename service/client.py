"""A client of the REST API: `with Client("http://127.0.0.1:8000") as attune: attune.submit({...})`.

Requests that are safe to repeat are repeated while the service is away or asks to wait; a submission carries an
Idempotency-Key, so repeating it never starts a second search. Every failure is an AttuneError.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from service.problems import LATER, AttuneError

Json = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8000"
FINISHED = frozenset({"succeeded", "failed", "cancelled"})
LONGEST_WAIT = 30.0
PATIENCE = 60.0
LONGEST_STREAM_PAUSE = 2.0
"""Seconds: a stream waits for a service that restarts."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a search; `id` resumes the stream after it."""

    id: str
    kind: str
    data: Json


class Client:
    """url, token: default to ATTUNE_URL and ATTUNE_TOKEN. attempts: tries of one request; timeout: seconds each."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        attempts: int = 3,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = (url or os.environ.get("ATTUNE_URL") or DEFAULT_URL).rstrip("/")
        token = token or os.environ.get("ATTUNE_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._attempts = attempts
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

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Json:
        """Queues a search and returns it. Repeating the call with the same key gives the same search."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return self._json("POST", "/api/v1/searches", body=spec, headers=headers)

    def searches(self, **filters: Any) -> Iterator[Json]:
        """All searches, newest first; filters as the API's query parameters."""
        return self._items("/api/v1/searches", filters)

    def search(self, search_id: str) -> Json:
        return self._json("GET", f"/api/v1/searches/{search_id}")

    def trials(self, search_id: str, **filters: Any) -> Iterator[Json]:
        """The search's trials; filters as the API's query parameters."""
        return self._items(f"/api/v1/searches/{search_id}/trials", filters)

    def front(self, search_id: str, **axes: Any) -> Json:
        """The front with baseline, controls and dominated points."""
        return self._json("GET", f"/api/v1/searches/{search_id}/front", params=axes)

    def progress(self, search_id: str) -> Json:
        return self._json("GET", f"/api/v1/searches/{search_id}/progress")

    def cancel(self, search_id: str) -> Json:
        return self._command(search_id, "cancel")

    def pause(self, search_id: str) -> Json:
        return self._command(search_id, "pause")

    def resume(self, search_id: str) -> Json:
        return self._command(search_id, "resume")

    def delete(self, search_id: str) -> None:
        """Deletes a finished search with its trials."""
        self._send("DELETE", f"/api/v1/searches/{search_id}")

    def preview(self, spec: Mapping[str, Any]) -> Json:
        """Count, sites and cost range of a request, without submitting it."""
        return self._json("POST", "/api/v1/previews", body=spec)

    def catalog(self, what: str) -> Json:
        """modules, backbones, datasets, strategies, recipes, metrics or published."""
        return self._json("GET", f"/api/v1/catalog/{what}")

    def cluster(self) -> Json:
        return self._json("GET", "/api/v1/cluster")

    def ready(self) -> bool:
        """Whether the service answers and its database is there."""
        try:
            return self._http.get("/readyz", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False

    def find(self, prefix: str) -> Json:
        """The one search whose id begins with `prefix`; AttuneError when there is none or more than one."""
        if len(prefix) == 36:
            return self.search(prefix)
        found = [search for search in self.searches() if search["id"].startswith(prefix.lower())]
        if len(found) == 1:
            return found[0]
        if not found:
            raise AttuneError(f"No search has an id that begins with {prefix!r}.", status=404)
        shown = ", ".join(search["id"] for search in found[:5])
        raise AttuneError(f"{len(found)} searches have an id that begins with {prefix!r}: {shown} …", status=404)

    def events(self, search_id: str, after: str | None = None) -> Iterator[Event]:
        """What happens in the search, from the event after `after` on (None: from its start), until it has ended.

        A broken stream is taken up again where it stopped; AttuneError when the service stays away for a minute.
        """
        failures, alive = 0, time.monotonic()
        while True:
            try:
                for event in self._stream(search_id, after):
                    if event.kind == "end":
                        return
                    after, failures = event.id, 0
                    yield event
                    alive = time.monotonic()
            except (AttuneError, httpx.TransportError) as error:
                failures += 1
                away = time.monotonic() - alive
                if away > PATIENCE or (isinstance(error, AttuneError) and not error.unreachable):
                    raise error if isinstance(error, AttuneError) else self._unreachable(error) from None
            time.sleep(min(LONGEST_STREAM_PAUSE, _pause(failures)))

    def _stream(self, search_id: str, after: str | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        path = f"/api/v1/searches/{search_id}/events"
        with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30.0, read=60.0)) as response:
            if response.status_code == 204:
                yield Event(after or "", "end", {})
                return
            if response.status_code != 200:
                response.read()
                raise _error(response)
            yield from parse_events(response.iter_lines())

    def _command(self, search_id: str, command: str) -> Json:
        return self._json("POST", f"/api/v1/searches/{search_id}/{command}")

    def _items(self, path: str, filters: Mapping[str, Any]) -> Iterator[Json]:
        params = {name: value for name, value in filters.items() if value is not None}
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
    ) -> httpx.Response:
        """The answer; repeats the request as long as that is safe and may help."""
        content = None if body is None else _encoded(body)
        headers = dict(headers or {}) | ({} if body is None else {"Content-Type": "application/json"})
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                response = self._http.request(method, path, content=content, params=params, headers=headers)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if last or isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
                    raise self._unreachable(error) from None
                time.sleep(_pause(attempt))
                continue
            if response.status_code in LATER and not last:
                time.sleep(_pause(attempt, response.headers.get("Retry-After")))
                continue
            if response.is_success:
                return response
            raise _error(response)
        raise ValueError(f"attempts must be at least 1, not {self._attempts}")

    def _unreachable(self, error: Exception) -> AttuneError:
        reason = str(error) or type(error).__name__
        return AttuneError(
            f"No attune service answers at {self.url} ({reason}). Start one with `attune serve`, or set ATTUNE_URL."
        )


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """The events in the lines of an event stream (WHATWG HTML, section 9.2.6), comments left out."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            data = json.loads("\n".join(fields["data"]))
            yield Event(fields.get("id", [""])[-1], fields.get("event", ["message"])[-1], data)
        fields = {}


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise AttuneError(f"The request cannot be written as JSON: {error}", status=400) from None


def _error(response: httpx.Response) -> AttuneError:
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


def _pause(attempt: int, retry_after: str | None = None) -> float:
    """Seconds to wait: what the service asks for, else doubling from a quarter second, spread by chance."""
    if retry_after is not None and retry_after.isdigit():
        return min(LONGEST_WAIT, float(retry_after))
    doubled: float = 0.25 * 2.0**attempt
    return min(LONGEST_WAIT, doubled) * random.uniform(0.5, 1.0)

"""A client of the REST API: `with Client("http://127.0.0.1:8000") as attune: attune.submit({...})`.

Requests are repeated while the service is away or asks to wait. What must not be done twice (a submission, an
extension, a retry) carries an Idempotency-Key, so that repeating it changes nothing again, and is repeated for longer:
a service that restarts loses nothing. Every failure is an AttuneError.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from service.event_stream import Event, parse_events
from service.problems import LATER, AttuneError
from service.schedule_client import ScheduleCalls

Json = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8000"
FINISHED = frozenset({"succeeded", "failed", "cancelled"})
LONGEST_WAIT = 30.0
"""Seconds that a service may ask to wait before the next attempt."""
LONGEST_PAUSE = 2.0
"""Seconds between attempts when it does not say; a service that restarts is noticed soon."""
PATIENCE = 60.0
"""Seconds for which a request that carries a key is repeated, and a stream waits for a service that restarts."""


class Client(ScheduleCalls):
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

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Json:
        """Queues a search and returns it. Repeating the call with the same key gives the same search."""
        return self._once("/api/v1/searches", spec, idempotency_key)

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

    def edit(
        self,
        search_id: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        priority: int | None = None,
        version: int | None = None,
    ) -> Json:
        """Changes what is given. version: of the search as it was seen; a newer one is an AttuneError of status 412."""
        given = {"name": name, "tags": None if tags is None else list(tags), "priority": priority}
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return self._json("PATCH", f"/api/v1/searches/{search_id}", body=_present(given), headers=headers)

    def extend(
        self,
        search_id: str,
        *,
        trials: int | None = None,
        hours: float | None = None,
        gpu_hours: float | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Queues a finished search again with a larger budget: new totals, each over that of now."""
        budget = _present({"trials": trials, "hours": hours, "gpu_hours": gpu_hours})
        return self._once(f"/api/v1/searches/{search_id}/extend", budget, idempotency_key)

    def retry(self, search_id: str, *, idempotency_key: str | None = None) -> Json:
        """Queues a finished search again, to try its failed trials once more."""
        return self._once(f"/api/v1/searches/{search_id}/retry", None, idempotency_key)

    def delete(self, search_id: str) -> None:
        """Deletes a finished search with its trials."""
        self._send("DELETE", f"/api/v1/searches/{search_id}")

    def preview(self, spec: Mapping[str, Any]) -> Json:
        """Count, sites and cost range of a request, without submitting it."""
        return self._json("POST", "/api/v1/previews", body=spec)

    def catalog(self, what: str) -> Json:
        """modules, backbones, datasets, strategies, recipes, metrics or published."""
        return self._json("GET", f"/api/v1/catalog/{what}")

    def artifacts(self, trial_id: str) -> list[Json]:
        """The files that a trial has left in the store."""
        found: list[Json] = self._json("GET", f"/api/v1/trials/{trial_id}/artifacts")["items"]
        return found

    def cluster(self) -> Json:
        """Nodes, what they have, and who runs what."""
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
            time.sleep(_pause(failures))

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

    def _once(self, path: str, body: Mapping[str, Any] | None, key: str | None) -> Json:
        """A POST that takes effect once, however often it is sent."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return self._json("POST", path, body=body, headers=headers, patience=self._patience)

    def _items(self, path: str, filters: Mapping[str, Any]) -> Iterator[Json]:
        params = _present(dict(filters))
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
                failure = _error(response)
                retry_after = response.headers.get("Retry-After")
                if response.status_code not in LATER and retry_after is None:
                    raise failure
            pause = _pause(attempt, retry_after)
            if attempt >= self._attempts and time.monotonic() + pause > deadline:
                raise failure
            if attempt >= self._attempts and self._on_wait is not None and not told:
                told = True
                self._on_wait(failure)
            time.sleep(pause)

    def _unreachable(self, error: Exception) -> AttuneError:
        reason = str(error) or type(error).__name__
        return AttuneError(
            f"No attune service answers at {self.url} ({reason}). Start one with `attune serve`, or set ATTUNE_URL."
        )


def _present(fields: Json) -> Json:
    """The fields that are given."""
    return {name: value for name, value in fields.items() if value is not None}


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
    doubled: float = 0.25 * 2.0 ** min(attempt, 10)
    return min(LONGEST_PAUSE, doubled) * random.uniform(0.5, 1.0)

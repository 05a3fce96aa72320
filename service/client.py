"""A client of the REST API: `with Client("http://127.0.0.1:8000") as attune: attune.submit({...})`.

Requests are repeated while the service is away or asks to wait. What must not be done twice (a submission, an
extension, a retry) carries an Idempotency-Key, so that repeating it changes nothing again, and is repeated for longer:
a service that restarts loses nothing. Every failure is an AttuneError.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from service import connection
from service.connection import PATIENCE, Json, error_of, present
from service.event_stream import Event, parse_events
from service.problems import AttuneError
from service.schedule_client import ScheduleCalls

FINISHED = frozenset({"succeeded", "failed", "cancelled"})


class Client(ScheduleCalls):
    """Everything that the API offers; the arguments are those of a Connection."""

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
        return self._json("PATCH", f"/api/v1/searches/{search_id}", body=present(given), headers=headers)

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
        budget = present({"trials": trials, "hours": hours, "gpu_hours": gpu_hours})
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
            time.sleep(connection.pause_seconds(failures))

    def _stream(self, search_id: str, after: str | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        path = f"/api/v1/searches/{search_id}/events"
        with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30.0, read=60.0)) as response:
            if response.status_code == 204:
                yield Event(after or "", "end", {})
                return
            if response.status_code != 200:
                response.read()
                raise error_of(response)
            yield from parse_events(response.iter_lines())

    def _command(self, search_id: str, command: str) -> Json:
        return self._json("POST", f"/api/v1/searches/{search_id}/{command}")

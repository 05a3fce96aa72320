"""The database away, locked or full: every route says 503 and when to try again, and works again afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from service.client import Client
from service.errors import LASTING_RETRY_SECONDS
from service.room import Room
from tests.faults.postgres import Postgres, opened_postgres
from tests.service.api.test_auth import ID, every_route, filled
from tests.service.support import SPEC, engine_of, opened, publish_digits, submit

URL = "/api/v1/searches"
SCHEDULE = {"name": "nightly", "cron": "0 2 * * *", "template": SPEC}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", URL): SPEC,
    ("POST", "/api/v1/previews"): SPEC,
    ("POST", "/live/drafts"): {"request": SPEC},
    ("POST", "/live/drafts/preview"): SPEC,
    ("PATCH", f"{URL}/{{search_id}}"): {"priority": 1},
    ("POST", f"{URL}/{{search_id}}/extend"): {"trials": 9},
    ("POST", "/api/v1/schedules"): SCHEDULE,
    ("PATCH", "/api/v1/schedules/{schedule_id}"): {"priority": 1},
    ("POST", "/api/v1/schedules/preview"): {"cron": "0 2 * * 0"},
}
TWO = {"search": [ID, f"{ID[:-1]}0"]}
QUERIES = {"/compare": TWO, "/live/compare": TWO, "/api/v1/fronts": TWO}
"""What a route cannot do without."""
WITHOUT_DATABASE = {
    "/healthz", "/metrics", "/docs", "/docs/style.css", "/openapi.json", "/login", "/static/{name}", "/live/example",
    "/schedules/new",
    *(f"/api/v1/catalog/{kind}" for kind in ("backbones", "metrics", "modules", "published", "recipes", "strategies")),
}  # fmt: skip
"""What answers from the program alone."""
ONLY_THE_CLOCK = {"/api/v1/schedules/preview"}
"""What asks the database for the time alone, which a locked file still tells."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that may be stopped."""
    with opened_postgres() as server:
        yield server


def assert_unavailable_everywhere(client: TestClient) -> None:
    routes = set(every_route(client.app.routes))  # type: ignore[attr-defined]
    assert {path for _, path in routes} >= WITHOUT_DATABASE
    for method, path in sorted(routes):
        address = filled(path).replace("{number}", "1")
        answer = client.request(method, address, json=BODIES.get((method, path)), params=QUERIES.get(path))
        if path in WITHOUT_DATABASE:
            assert answer.status_code < 500, (method, path, answer.text)
            continue
        if path in ONLY_THE_CLOCK and answer.status_code == 200:
            continue
        assert answer.status_code == 503, (method, path, answer.status_code, answer.text)
        assert int(answer.headers["retry-after"]) >= 1, (method, path)
        if path.startswith("/api/"):
            assert answer.headers["content-type"] == "application/problem+json"


def test_every_route_while_postgresql_is_stopped(postgres: Postgres) -> None:
    with opened(postgres.database(), busy_seconds=1.0) as client:
        found = submit(client)
        client.get("/metrics")
        postgres.stop()
        try:
            assert_unavailable_everywhere(client)
        finally:
            postgres.start()
        assert client.get(f"{URL}/{found['id']}").json() == found, "nothing to be restarted but the database"
        assert client.get("/readyz").status_code == 200


def test_every_route_while_sqlite_is_locked(sqlite_url: str) -> None:
    with opened(sqlite_url, busy_seconds=0.02) as client:
        found = submit(client)
        with held(sqlite_url, "EXCLUSIVE"):  # as a writer does while it commits: nobody may read either
            assert_unavailable_everywhere(client)
        assert client.get(f"{URL}/{found['id']}").json() == found


def test_a_write_waits_for_another_one_and_then_says_503(sqlite_url: str) -> None:
    with opened(sqlite_url, busy_seconds=0.05) as client:
        with held(sqlite_url, "IMMEDIATE"):
            refused = client.post(URL, json=SPEC, headers={"Idempotency-Key": "k"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert client.get(URL).json()["items"] == [], "reading goes on"
            assert client.get("/readyz").status_code == 200, "busy is not full"
        assert client.post(URL, json=SPEC, headers={"Idempotency-Key": "k"}).status_code == 201
        assert len(client.get(URL).json()["items"]) == 1


def test_a_full_disk_is_503_and_red_until_there_is_room(sqlite_url: str) -> None:
    with opened(sqlite_url) as client:
        assert client.get("/readyz").status_code == 200
        engine = engine_of(client)
        tags = [f"{number:0>40}" for number in range(15)]
        with full(engine):
            stored = 0
            while (answer := client.post(URL, json=SPEC | {"tags": tags})).status_code == 201:
                stored += 1
                assert stored < 100, "the disk was not full"
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == str(LASTING_RETRY_SECONDS)
            assert len(client.get(URL).json()["items"]) == stored, "no partial row, and reading goes on"
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert ready.headers["retry-after"]
            assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.post(URL, json=SPEC).status_code == 201
        with sqlite3.connect(engine.url.database or "") as direct:
            assert direct.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert direct.execute("SELECT count(*) FROM settings WHERE key LIKE 'probe%'").fetchone() == (0,)


def test_readiness_asks_for_room_only_now_and_then(any_client: TestClient) -> None:
    now = [0.0]
    engine = engine_of(any_client)
    room = Room(engine, clock=lambda: now[0])
    writes: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT"):  # the service reads long searches as it starts
            writes.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    room.check()
    tried = len(writes)
    assert tried
    now[0] = 4.9
    room.check()
    assert len(writes) == tried
    now[0] = 5.1
    room.check()
    assert len(writes) == 2 * tried
    room.doubt()
    room.check()
    assert len(writes) == 3 * tried


def test_the_client_gets_through_an_outage(postgres: Postgres) -> None:
    """It asks again while the database is away, and the search is there once."""
    with opened(postgres.database(), busy_seconds=1.0) as direct:
        waited: list[str] = []

        def back(error: object) -> None:
            waited.append(str(error))
            postgres.start()

        def answer(request: httpx.Request) -> httpx.Response:
            headers = {name: value for name, value in request.headers.items() if name != "host"}
            got = direct.request(request.method, request.url.path, content=request.content, headers=headers)
            return httpx.Response(got.status_code, headers=got.headers, content=got.content)

        publish_digits(engine_of(direct))
        postgres.stop()
        with Client("http://localhost", attempts=1, transport=httpx.MockTransport(answer), on_wait=back) as client:
            found = client.submit(SPEC)
            assert [search["id"] for search in client.searches()] == [found["id"]]
        assert len(waited) == 1
        assert "try again" in waited[0]


@contextmanager
def held(url: str, how: str) -> Iterator[None]:
    """Another process holds the database's lock."""
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute(f"BEGIN {how}")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


@contextmanager
def full(engine: Engine) -> Iterator[None]:
    """The database cannot grow: its limit is a matter of each connection, and a limit below its size becomes that."""

    def limited(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    event.listen(engine, "begin", limited)
    try:
        yield
    finally:
        event.remove(engine, "begin", limited)
        engine.dispose()

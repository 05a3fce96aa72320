"""Who gets in: every route is walked, so that a new one cannot be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from service.app import create_app
from service.settings import ServiceSettings
from tests.service.support import SPEC, opened, submit

TOKEN = "a-long-random-text-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ID = "01a1fd29-e958-76c4-afee-650dbdac53ab"
PUBLIC = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/login"), ("GET", "/static/{name}")}
STATE = {"cancel", "pause", "resume"}


@pytest.fixture
def guarded(sqlite_url: str) -> Iterator[TestClient]:
    with opened(sqlite_url, token=TOKEN) as client:
        yield client


def every_route(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of everything that answers; fails on a route whose kind it does not know."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from every_route(inner.routes, prefix + route.include_context.prefix)
            continue
        assert getattr(route, "dependant", None) is not None, f"{route!r} is no route with dependencies"
        yield from ((method, prefix + route.path) for method in route.methods - {"HEAD", "OPTIONS"})


def filled(path: str) -> str:
    names = ("search_id", "trial_id", "schedule_id", "fire_id")
    for name in names:
        path = path.replace(f"{{{name}}}", ID)
    return path.replace("{command}", "cancel").replace("{name}", "nothing")


def test_every_route_but_the_public_ones_asks_for_the_token(guarded: TestClient) -> None:
    routes = set(every_route(guarded.app.routes))  # type: ignore[attr-defined]
    assert len(routes) >= 30
    assert {path for _, path in routes} >= {"/metrics", "/docs", "/openapi.json", "/api/v1/searches/{search_id}/events"}
    for method, path in sorted(routes - PUBLIC):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": TOKEN},
        ):
            answer = guarded.request(method, filled(path), headers=headers)
            assert answer.status_code == 401, (method, path, headers)
    for method, path in PUBLIC & routes:
        assert guarded.request(method, filled(path)).status_code in (200, 303, 401, 404), path


def test_every_route_is_in_the_walk(guarded: TestClient) -> None:
    described = guarded.get("/openapi.json", headers=BEARER).json()["paths"]
    routes = set(every_route(guarded.app.routes))  # type: ignore[attr-defined]
    assert {(method.upper(), path) for path, operations in described.items() for method in operations} <= routes


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_token_lets_in(guarded: TestClient, scheme: str) -> None:
    answer = guarded.get("/api/v1/searches", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Bearer \xe9", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN} x", "x" * 5000]
)
def test_malformed_tokens_are_401(guarded: TestClient, value: str) -> None:
    answer = guarded.get("/api/v1/searches", headers={"Authorization": value.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


def test_login_gives_a_browser_a_session(guarded: TestClient) -> None:
    answer = guarded.get("/login", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/api/v1/searches").status_code == 200


@pytest.mark.parametrize("params", [{}, {"token": "wrong"}, {"token": ""}])
def test_login_without_the_token_is_401(guarded: TestClient, params: dict[str, str]) -> None:
    answer = guarded.get("/login", params=params)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_forged_and_foreign_sessions_are_401(guarded: TestClient, sqlite_url: str) -> None:
    guarded.get("/login", params={"token": TOKEN})
    session = guarded.cookies["attune_session"]
    guarded.cookies.clear()
    with opened(sqlite_url, token="another-token") as other:
        turned = session[-5:] + session[:-5]  # the last character alone may be padding
        for value in (turned, session[:-4], "", "x.y.z"):
            headers = {"Cookie": f"attune_session={value}"}
            assert guarded.get("/api/v1/searches", headers=headers).status_code == 401
        assert other.get("/api/v1/searches", headers={"Cookie": f"attune_session={session}"}).status_code == 401


FOREIGN = [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://localhost:9999"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN)
def test_writes_of_other_sites_are_403(guarded: TestClient, headers: dict[str, str]) -> None:
    guarded.get("/login", params={"token": TOKEN})
    assert guarded.post("/api/v1/searches", json=SPEC, headers=headers).status_code == 403
    assert guarded.get("/api/v1/searches", headers=headers).status_code == 200
    assert guarded.post("/api/v1/searches", json=SPEC, headers=headers | BEARER).status_code == 201


@pytest.mark.parametrize("headers", FOREIGN)
def test_without_a_token_other_sites_cannot_write_either(client: TestClient, headers: dict[str, str]) -> None:
    found = submit(client)
    answer = client.post(f"/api/v1/searches/{found['id']}/cancel", headers=headers)
    assert answer.status_code == 403
    assert client.get(f"/api/v1/searches/{found['id']}").json()["status"] == "queued"


def test_own_pages_may_write(guarded: TestClient) -> None:
    guarded.get("/login", params={"token": TOKEN})
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert guarded.post("/api/v1/searches", json=SPEC, headers=headers).status_code == 201


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_open_bind_needs_a_token(host: str) -> None:
    with pytest.raises(ValidationError, match="ATTUNE_TOKEN"):
        ServiceSettings(host=host)
    with pytest.raises(ValidationError, match="ATTUNE_TOKEN"):
        ServiceSettings(host=host, token=" ")
    assert ServiceSettings(host=host, token=TOKEN).secret == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_needs_none(host: str) -> None:
    assert ServiceSettings(host=host).secret is None


def test_server_opened_by_hand_is_refused_without_a_token(sqlite_url: str) -> None:
    """uvicorn --host 0.0.0.0 while the settings say loopback: the socket's own address tells."""
    app = create_app(ServiceSettings(database_url=sqlite_url))
    with TestClient(app, base_url="http://192.168.7.7") as client:
        assert client.get("/api/v1/searches").status_code == 403
        assert client.get("/healthz").status_code == 200


HOSTS = {
    "localhost": 200, "localhost:8000": 200, "127.0.0.1": 200, "[::1]:8000": 200, "LOCALHOST": 200,
    "attune.example": 200, "evil.example": 400, "localhost.evil.example": 400, "localhost@evil.example": 400,
    "": 400, "[::1": 400, "10.0.0.1": 400,
}  # fmt: skip


@pytest.mark.parametrize(("host", "status"), HOSTS.items())
def test_host_header(sqlite_url: str, host: str, status: int) -> None:
    with opened(sqlite_url, allowed_hosts="other.example, attune.example", publish=False) as client:
        answer = client.get("/healthz", headers={"Host": host})
        assert answer.status_code == status
        if status == 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert "example" not in answer.text


def test_token_is_neither_logged_nor_shown(sqlite_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    canary = "canary-5f2b9c"
    with opened(sqlite_url, token=canary) as client:
        client.get("/login", params={"token": canary})
        client.get("/login", params={"token": f"{canary}-wrong"})
        client.post(
            "/api/v1/searches", json=SPEC | {"password": canary, "priority": canary, "owner": f"{canary}\u202e"}
        )
        client.post("/api/v1/searches", content=f'{{"name": "{canary}"', headers={"Content-Type": "application/json"})
        client.get(f"/api/v1/{canary}", params={canary: canary})
        assert canary not in repr(client.app.state.service.settings)  # type: ignore[attr-defined]
        shown = client.post(
            "/api/v1/searches", json=SPEC | {"password": canary}, headers={"Authorization": f"Bearer {canary}"}
        )
    logged = capfd.readouterr()
    assert '"event": "request"' in logged.err
    assert canary not in logged.out + logged.err
    assert canary not in shown.text

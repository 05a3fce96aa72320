"""The client's repeats, resumes and errors, against transports that misbehave as networks do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from service import connection as module
from service.client import Client
from service.event_stream import parse_events
from service.problems import AttuneError

Answer = httpx.Response | Exception
PAUSE = module.pause_seconds


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pause_seconds", lambda attempt, retry_after=None: 0.0)


def scripted(*answers: Answer, **options: Any) -> tuple[Client, list[httpx.Request]]:
    """A client whose requests get these answers in turn, and the requests."""
    seen: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return Client("http://attune", "secret", attempts=4, transport=httpx.MockTransport(answer), **options), seen


def problem(status: int, **fields: object) -> httpx.Response:
    return httpx.Response(status, json={"title": "T", "status": status, **fields})


def test_a_submission_is_repeated_with_the_same_key_until_it_is_answered() -> None:
    client, seen = scripted(
        httpx.ConnectError("no"), problem(503), httpx.ReadTimeout("slow"), httpx.Response(201, json={"id": "1"})
    )
    assert client.submit({"name": "x"}) == {"id": "1"}
    keys = {request.headers["Idempotency-Key"] for request in seen}
    assert len(seen) == 4
    assert len(keys) == 1
    assert all(request.headers["Authorization"] == "Bearer secret" for request in seen)


def test_what_carries_a_key_outlasts_a_restart_and_says_that_it_waits() -> None:
    told: list[AttuneError] = []
    away = [
        *[httpx.ConnectError("refused")] * 20,
        problem(503, detail="Not yet."),
        httpx.Response(202, json={"id": "1"}),
    ]
    client, seen = scripted(*away, on_wait=told.append)
    assert client.extend("1", trials=9) == {"id": "1"}
    assert len({request.headers["Idempotency-Key"] for request in seen}) == 1
    assert {request.content for request in seen} == {b'{"trials": 9}'}
    assert [error.unreachable for error in told] == [True]


@pytest.mark.parametrize("send", [lambda c: c.submit({}), lambda c: c.extend("1", trials=9), lambda c: c.retry("1")])
def test_patience_has_an_end(send: Callable[[Client], object]) -> None:
    client, seen = scripted(*[httpx.ConnectError("refused")] * 4, patience=0.0)
    with pytest.raises(AttuneError, match="attune serve"):
        send(client)
    assert len(seen) == 4


def test_a_request_that_is_being_answered_is_asked_for_again() -> None:
    busy = httpx.Response(409, json={"title": "T", "status": 409}, headers={"Retry-After": "1"})
    client, seen = scripted(busy, httpx.Response(201, json={"id": "1"}))
    assert client.submit({}) == {"id": "1"}
    assert len(seen) == 2


def test_only_what_is_given_is_changed() -> None:
    client, seen = scripted(*[httpx.Response(200, json={})] * 2)
    client.edit("1", tags=[])
    client.edit("1", name="n", priority=0, version=7)
    assert [json.loads(request.content) for request in seen] == [{"tags": []}, {"name": "n", "priority": 0}]
    assert [request.headers.get("If-Match") for request in seen] == [None, '"7"']
    assert {request.method for request in seen} == {"PATCH"}


def test_two_submissions_have_two_keys() -> None:
    client, seen = scripted(httpx.Response(201, json={}), httpx.Response(201, json={}))
    client.submit({})
    client.submit({})
    assert seen[0].headers["Idempotency-Key"] != seen[1].headers["Idempotency-Key"]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_a_refusal_is_not_repeated(status: int) -> None:
    client, seen = scripted(
        problem(status, detail="No.", errors=[{"field": "a.b", "message": "Wrong.", "choices": ["x", "y"]}])
    )
    with pytest.raises(AttuneError) as caught:
        client.submit({})
    assert len(seen) == 1
    assert not caught.value.unreachable
    assert caught.value.lines == ["a.b: Wrong. Valid: x, y."]
    assert "No." in str(caught.value)


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("900", 30.0), ("0", 0.0)])
def test_the_service_says_how_long_to_wait(asked: str, waited: float) -> None:
    assert PAUSE(1, asked) == waited


def test_pauses_grow_and_stay_short() -> None:
    assert all(0.25 <= PAUSE(1) <= 0.5 for _ in range(20))
    assert all(1.0 <= PAUSE(attempt) <= 2.0 for attempt in (3, 10, 2000))


def test_a_service_that_stays_away_is_unreachable() -> None:
    client, seen = scripted(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(AttuneError, match="attune serve") as caught:
        client.search("x")
    assert caught.value.unreachable
    assert len(seen) == 4


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json=[1])])
def test_another_service_at_the_address_is_told(answer: httpx.Response) -> None:
    client, _ = scripted(answer)
    with pytest.raises(AttuneError, match="another service"):
        client.search("x")


def test_lists_follow_the_cursor() -> None:
    client, seen = scripted(
        httpx.Response(200, json={"items": [1, 2], "next_cursor": "c"}),
        httpx.Response(200, json={"items": [3], "next_cursor": None}),
    )
    assert list(client.searches(status="running", tag=None)) == [1, 2, 3]
    assert dict(seen[0].url.params) == {"status": "running"}
    assert dict(seen[1].url.params) == {"status": "running", "cursor": "c"}


def stream(*events: tuple[int, str], broken: bool = False) -> httpx.Response:
    def body() -> Iterator[bytes]:
        for number, kind in events:
            yield f"id: {number}\nevent: {kind}\ndata: {json.dumps({'n': number})}\n\n".encode()
        if broken:
            raise httpx.ReadError("cut")

    return httpx.Response(200, content=body(), headers={"Content-Type": "text/event-stream"})


def test_a_cut_stream_goes_on_where_it_stopped() -> None:
    client, seen = scripted(
        stream((1, "a"), (2, "b"), broken=True), httpx.ConnectError("restarting"), stream((3, "c"), (3, "end"))
    )
    assert [(event.id, event.kind, event.data["n"]) for event in client.events("x")] == [
        ("1", "a", 1),
        ("2", "b", 2),
        ("3", "c", 3),
    ]
    assert [request.headers.get("Last-Event-ID") for request in seen] == [None, "2", "2"]


def test_a_stream_that_ends_without_an_end_is_taken_up_again() -> None:
    client, seen = scripted(stream((1, "a")), stream((2, "b")), httpx.Response(204))
    assert [event.id for event in client.events("x")] == ["1", "2"]
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("data: 1\n\n", [("", "message", 1)]),
        (': beat\n\nid: 7\nevent: e\ndata: {"a":\ndata: 2}\n\n', [("7", "e", {"a": 2})]),
        ("data: 1\n", []),
        ("event: x\n\n", []),
    ],
)
def test_parsing_events(text: str, found: list[tuple[str, str, object]]) -> None:
    assert [(e.id, e.kind, e.data) for e in parse_events(iter(text.split("\n")[:-1]))] == found


def test_what_is_no_json_is_refused_here() -> None:
    client, seen = scripted()
    with pytest.raises(AttuneError, match="JSON"):
        client.submit({"x": float("nan")})
    assert seen == []


def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_URL", "not an address")
    calls: list[Callable[[], object]] = [lambda: Client().search("x")]
    for call in calls:
        with pytest.raises(AttuneError):
            call()

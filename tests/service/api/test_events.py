"""The event stream, over a real socket where leaving and waiting matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from db.engine import make_engine
from service.settings import ServiceSettings
from tests.service.support import SPEC, Driver, architecture, engine_of, publish_digits, served, submit, wait_until

Told = tuple[int, str, dict[str, Any]]


def events(lines: Iterator[str]) -> Iterator[Told]:
    """Independent of the service's own client: (number, kind, data)."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, value = line.split(": ", 1)
            fields[name] = value
        elif fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def ended_search(client: TestClient) -> str:
    found: str = submit(client)["id"]
    driver = Driver(engine_of(client), found)
    driver.trial(architecture(("se", {"reduction": 4})), top1=0.9)
    driver.end()
    return found


def read(client: TestClient, search_id: str, headers: dict[str, str] | None = None, **params: int) -> list[Told]:
    answer = client.get(f"/api/v1/searches/{search_id}/events", headers=headers, params=params)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(events(iter(answer.text.split("\n"))))


def test_ended_search_tells_everything_and_closes(any_client: TestClient) -> None:
    found = ended_search(any_client)
    told = read(any_client, found)
    kinds = [kind for _, kind, _ in told]
    assert kinds == [
        "search.created", "search.status", "trial.started", "trial.epoch", "trial.epoch", "trial.finished",
        "search.status", "end",
    ]  # fmt: skip
    assert [number for number, _, _ in told[:-1]] == list(range(1, 8))
    assert told[-1] == (7, "end", {"status": "succeeded"})
    assert told[5][2]["top1"] == 0.9
    assert "at" in told[0][2]


def test_stream_is_resumed(any_client: TestClient) -> None:
    found = ended_search(any_client)
    everything = read(any_client, found)
    for last in range(1, 7):
        assert read(any_client, found, {"Last-Event-ID": str(last)}) == everything[last:]
        assert read(any_client, found, after=last) == everything[last:]
    answer = any_client.get(f"/api/v1/searches/{found}/events", headers={"Last-Event-ID": "7"})
    assert answer.status_code == 204, "a browser reconnects until it is told that there is no more"


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 40, "", "²", "99", "1e3"])
def test_bad_last_event_id_is_400(client: TestClient, value: str) -> None:
    found = ended_search(client)
    headers = {"Last-Event-ID": value.encode("latin-1")}
    answer = client.get(f"/api/v1/searches/{found}/events", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


def test_live_stream_heartbeats_and_leaving(database_url: str) -> None:
    settings = ServiceSettings(database_url=database_url, event_poll_seconds=0.02, heartbeat_seconds=0.05)
    with (
        served(settings) as url,
        opened_engine(database_url) as engine,
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        publish_digits(engine)
        found = client.post("/api/v1/searches", json=SPEC).json()["id"]
        with client.stream("GET", f"/api/v1/searches/{found}/events") as answer:
            assert streams(client) == 1
            lines = answer.iter_lines()
            assert next(events(lines))[1] == "search.created"
            assert next(lines).startswith(":"), "a heartbeat while nothing happens"
            driver = Driver(engine, found)
            following = events(lines)
            driver.trial(architecture(("se", {"reduction": 4})), top1=0.9)
            assert [next(following)[1] for _ in range(3)] == ["search.status", "trial.started", "trial.epoch"]
        wait_until(lambda: streams(client) == 0, seconds=2)
        assert client.get(f"/api/v1/searches/{found}").status_code == 200


def test_deleted_search_ends_the_stream(database_url: str) -> None:
    settings = ServiceSettings(database_url=database_url, event_poll_seconds=0.02)
    with (
        served(settings) as url,
        opened_engine(database_url) as engine,
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        publish_digits(engine)
        path = f"/api/v1/searches/{client.post('/api/v1/searches', json=SPEC).json()['id']}"
        with client.stream("GET", f"{path}/events") as answer:
            told = events(answer.iter_lines())
            next(told)
            client.post(f"{path}/cancel")
            client.delete(path)
            kinds = [(kind, data.get("status")) for _, kind, data in told]
        assert kinds[-1] in (("end", "deleted"), ("end", "cancelled"))


def test_server_stops_at_once_while_a_stream_is_open(sqlite_url: str) -> None:
    """A plain uvicorn would wait for the stream until its graceful time-out."""
    command = [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--port", "0",
               "--timeout-graceful-shutdown", "60"]  # fmt: skip
    with opened_engine(sqlite_url) as engine:
        publish_digits(engine)
    environment = os.environ | {"ATTUNE_DATABASE_URL": sqlite_url}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = next(json.loads(line)["event"].split()[3] for line in process.stderr if "running on" in line)
            with httpx.Client(base_url=url, timeout=20) as client:
                found = client.post("/api/v1/searches", json=SPEC).json()["id"]
                with client.stream("GET", f"/api/v1/searches/{found}/events") as answer:
                    told = events(answer.iter_lines())
                    next(told)
                    began = time.monotonic()
                    process.send_signal(signal.SIGTERM)
                    assert list(told) == []
            process.wait(30)
            assert time.monotonic() - began < 20
        finally:
            process.kill()


def streams(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("attune_event_streams ")).split()[1])


@contextmanager
def opened_engine(url: str) -> Iterator[Engine]:
    """An engine on `url`, disposed of at the end."""
    engine = make_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()

"""Faults that reach people through REST: the API killed, the database locked or full, clients that leave or repeat."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.house import House, free_port, until
from tests.faults.searches import CLOCK, DAY, HOUR, locked
from tests.service.support import SPEC, publish_digits


def post(house: House, key: str, port: int | None = None, **spec: Any) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{port or house.port}/api/v1/searches",
        json=SPEC | spec,
        headers={"Idempotency-Key": key},
        timeout=60,
    )


def names(house: House) -> list[str]:
    return [search["name"] for search in house.client.searches()]


def open_office(office: House, **settings: str) -> House:
    office.start_api(**settings)
    publish_digits(office.engine)
    return office


@pytest.mark.slow
def test_an_api_killed_in_the_middle_of_a_post_leaves_nothing_or_one_search(office: House) -> None:
    open_office(office)
    with locked(office.database_url), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, office, "held", name="held")
        time.sleep(1)  # it has read what it needs and waits for the lock; nobody can tell which
        assert not answer.done()
        office.kill("api")
        assert isinstance(answer.exception(30), httpx.TransportError)
    office.start_api()
    assert names(office) == [], "what was not committed is not there"
    first = post(office, "held", name="held")
    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    assert names(office) == ["held"]


@pytest.mark.slow
def test_a_retry_after_a_kill_at_any_moment_gives_the_same_search(office: House) -> None:
    open_office(office)
    began = time.monotonic()
    post(office, "warm", name="warm")
    usual = time.monotonic() - began
    moments = random.Random(0)
    for number in range(4):
        key = f"key-{number}"
        with ThreadPoolExecutor(1) as pool:
            answer: Future[httpx.Response] = pool.submit(post, office, key, name=key)
            time.sleep(moments.uniform(0, 1.2 * usual))
            office.kill("api")
            told = None if answer.exception(30) else answer.result().json()["id"]
        office.start_api()
        stored = [search["id"] for search in office.client.searches() if search["name"] == key]
        assert len(stored) <= 1
        again = post(office, key, name=key)
        assert again.status_code == 201
        assert told in (None, again.json()["id"])
        assert stored in ([], [again.json()["id"]])
        assert names(office).count(key) == 1


@pytest.mark.slow
def test_twenty_posts_with_one_key_to_two_servers_are_one_search(office: House) -> None:
    open_office(office)
    first, office.port = office.port, free_port()
    office.start("second", "uvicorn", "service.app:create_app", "--factory", "--port", str(office.port))
    until(lambda: httpx.get(f"http://127.0.0.1:{office.port}/readyz").is_success if _listens(office.port) else False)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: post(office, "one", (first, office.port)[n % 2]), range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(names(office)) == 1


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_writer_waits_for_another_and_says_503_when_that_takes_too_long(office: House) -> None:
    open_office(office, ATTUNE_BUSY_SECONDS="4")
    with ThreadPoolExecutor(1) as pool:
        with locked(office.database_url):
            waiting = pool.submit(post, office, "waits")
            time.sleep(1)
            assert not waiting.done()
        assert waiting.result(60).status_code == 201
    office.kill("api")
    office.start_api(ATTUNE_BUSY_SECONDS="0.2")
    with locked(office.database_url):
        refused = post(office, "refused")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert len(names(office)) == 1, "reading goes on"
    assert post(office, "refused").status_code == 201
    assert len(names(office)) == 2


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$;
"""
TRIGGER = "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {0} FOR EACH ROW EXECUTE FUNCTION full_disk()"


@contextmanager
def full_disk(office: House, marker: Path) -> Iterator[None]:
    """SQLite's file may not grow, for a process with the plug-in `full_disk`; PostgreSQL takes no row and says why, as
    a server does whose disk is full."""
    if office.database_url.startswith("sqlite"):
        marker.touch()
        yield
        marker.unlink()
        return
    tables = ("searches", "settings", "events")
    with office.engine.begin() as connection:
        for statement in (FULL, *(TRIGGER.format(table) for table in tables)):
            connection.exec_driver_sql(statement)
    yield
    with office.engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION full_disk CASCADE")


@pytest.mark.slow
def test_a_full_disk_is_503_and_red_until_there_is_room(office: House, tmp_path: Path) -> None:
    full = tmp_path / "full"
    open_office(office, ATTUNE_PLUGINS="tests.faults.full_disk", FAULTS_FULL_DISK=str(full))
    assert office.client.ready()
    with full_disk(office, full):
        stored, refused = 0, None
        for number in range(200):
            answer = post(office, f"key-{number}", name=f"number {number}", tags=[f"{n:0>40}" for n in range(10)])
            if answer.status_code != 201:
                refused = answer
                break
            stored += 1
        assert refused is not None, "the disk was not full"
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert len(names(office)) == stored, "no partial row"
        url = f"http://127.0.0.1:{office.port}"
        until(lambda: httpx.get(f"{url}/readyz", timeout=10).status_code == 503, 15)
        assert httpx.get(f"{url}/healthz").status_code == 200
    until(office.client.ready, 15)
    again = post(office, f"key-{stored}", name=f"number {stored}")
    assert again.status_code == 201, "the key of the refused request is free"
    assert len(names(office)) == stored + 1


@pytest.mark.slow
def test_the_generator_of_a_stream_is_closed_when_its_client_leaves(office: House) -> None:
    open_office(office, ATTUNE_EVENT_POLL_SECONDS="0.2")
    search_id = post(office, "watched").json()["id"]

    def open_streams() -> float:
        text = httpx.get(f"http://127.0.0.1:{office.port}/metrics").text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("attune_event_streams ")))

    clients = []
    for _ in range(5):
        client = socket.create_connection(("127.0.0.1", office.port))
        client.sendall(f"GET /api/v1/searches/{search_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        clients.append(client)
    until(lambda: open_streams() == 5, 30)
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # as a client that was killed
        client.close()
    until(lambda: open_streams() == 0, 5)
    assert post(office, "still there").status_code == 201


@pytest.mark.slow
@pytest.mark.parametrize("shift", [DAY, -DAY, HOUR, -HOUR])
def test_a_key_is_remembered_whatever_the_clock_of_the_server_says(office: House, tmp_path: Path, shift: int) -> None:
    """Keys are kept for a day by the database's clock."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    path = office.environment["PYTHONPATH"]
    open_office(office, PYTHONPATH=f"{CLOCK}:{path}", FAULTS_CLOCK=str(clock))
    first = post(office, "kept")
    clock.write_text(str(shift))
    again = post(office, "kept")
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert again.headers["idempotency-replayed"] == "true"
    assert len(names(office)) == 1

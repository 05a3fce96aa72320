"""Dispatchers as processes: killed, doubled, without Ray. A lease of a minute shows what is not left to the lease."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from db import claims, deliveries, schedules, searches
from db.engine import reading, writing
from db.models import Delivery, Search, Trial
from tests.e2e.house import House, Ray, opened_ray, until

markers = itertools.count(700_000)
LONG_LEASE = "60"
PATIENCE = 500.0
"""Seconds for what takes a few on an idle machine: starting processes that import torch."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    with opened_ray(2) as opened:
        yield opened


def house_of(home: Path, database_url: str, ray: Ray | None, **settings: str) -> House:
    home.mkdir(exist_ok=True)
    return House(database_url, home, ray, {"ATTUNE_LEASE_SECONDS": LONG_LEASE, **settings})


@pytest.fixture
def house(tmp_path: Path, database_url: str, ray: Ray) -> Iterator[House]:
    """A house without a dispatcher yet."""
    made = house_of(tmp_path / "home", database_url, ray)
    made.start_api()
    yield made
    made.stop()


def request(trials: int = 4, seconds: float = 0.2, **more: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "dataset": {"name": "troubles", "seconds": seconds, "marker": next(markers)},
        "backbone": {"name": "resnet8", "width": 8},
        "space": {"modules": ["none", "se"], "reduction": [2, 4], "pattern": ["last", "every"]},
        "training": {"epochs": 1},
        "controls": False,
        "budget": {"trials": trials},
        **more,
    }


def row(house: House, search_id: str) -> Search:
    with reading(house.engine) as session:
        return searches.get(session, search_id)


def running(house: House, search_id: str) -> Search:
    """The search once its driver has reported a first trial's start."""
    until(lambda: house.client.search(search_id)["counts"].get("running"), PATIENCE)
    return row(house, search_id)


def test_a_restarted_dispatcher_adopts_living_drivers_and_stops_them(house: House) -> None:
    house.start_dispatcher("first")
    search_id = house.client.submit(request(seconds=2.0, trials=8))["id"]
    before = running(house, search_id)
    driver = house.driver(search_id)
    house.kill("first")
    assert driver.is_running(), "on a standing cluster drivers live on"
    house.start_dispatcher("second")
    until(lambda: row(house, search_id).lease_owner != before.lease_owner, 60)
    after = row(house, search_id)
    assert (after.attempt, after.driver) == (before.attempt, before.driver)
    house.end("second")  # SIGTERM reaches the adopted driver too, which hands back
    assert not driver.is_running()
    ended = row(house, search_id)
    assert (ended.status, ended.deaths) == ("queued", 0)


def test_a_dispatcher_that_stops_while_it_sends_a_message_notes_that_it_is_sent(
    tmp_path: Path, database_url: str, ray: Ray
) -> None:
    asked, answer = threading.Event(), threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.set()
            answer.wait(60)
            time.sleep(1.0)  # the dispatcher has been told to stop by now
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    house = house_of(tmp_path / "home", database_url, ray, ATTUNE_HOOK_HOSTS="127.0.0.1")
    try:
        house.start_api()
        house.start_dispatcher("first")
        target = f"http://127.0.0.1:{server.server_port}/"
        with writing(house.engine) as session:
            notify = [{"channel": "webhook", "target": target, "events": ["failed"], "secret": "s" * 32}]
            found = schedules.create(
                session, name="s", cron="0 2 * * 0", zone="UTC", template={}, next_fire_at=None, notify=notify
            )
            sent = deliveries.add(
                session, found.id, channel="webhook", target=target, event="test", payload={"event": "test"}
            ).id  # fmt: skip
        assert asked.wait(PATIENCE)
        answer.set()
        house.end("first")
        with reading(house.engine) as session:
            row = session.get_one(Delivery, sent)
        assert (row.status, row.attempts) == ("sent", 1)
    finally:
        answer.set()
        house.stop()
        server.shutdown()
        server.server_close()


def test_a_search_whose_adopted_driver_dies_goes_on_at_once(house: House) -> None:
    house.start_dispatcher("first")
    search_id = house.client.submit(request(trials=6, seconds=1.0))["id"]
    running(house, search_id)
    driver = house.driver(search_id)
    house.kill("first")
    house.start_dispatcher("second")
    until(lambda: "driver.adopted" in house.log("second"), 60)
    driver.kill()
    started = time.monotonic()
    until(lambda: row(house, search_id).attempt == 2, 30)
    assert time.monotonic() - started < 30, "half of the lease"
    assert house.finished(search_id, PATIENCE)["status"] == "succeeded"
    assert house.client.search(search_id)["counts"]["succeeded"] == 7  # and the baseline


def test_two_dispatchers_run_each_search_once_and_share_the_slots(house: House) -> None:
    house.start_dispatcher("first")
    house.start_dispatcher("second")
    ids = [house.client.submit(request(trials=4, seconds=0.1))["id"] for _ in range(6)]
    most = 0
    while not all(house.client.search(i)["status"] == "succeeded" for i in ids):
        with reading(house.engine) as session:
            held = claims.running(session)
        most = max(most, len(held))
        assert len(held) <= 2, "more searches than slots"
        time.sleep(0.1)
    assert most == 2
    assert all(row(house, i).attempt == 1 for i in ids)
    started = [name for name in ("first", "second") for _ in range(house.log(name).count("driver.started"))]
    assert len(started) == 6
    assert set(started) == {"first", "second"}, "one of them did nothing"
    nodes = house.client.cluster()["nodes"]
    assert len(nodes) == 1, "both publish the same node"


def test_priorities_that_change_move_slots(house: House) -> None:
    house.start_dispatcher()
    one, other = (house.client.submit(request(trials=500, seconds=60.0))["id"] for _ in range(2))
    until(lambda: {row(house, i).status for i in (one, other)} == {"running"}, PATIENCE)
    assert {row(house, i).quota for i in (one, other)} == {1}
    house.client.cancel(other)
    until(lambda: row(house, one).quota == 2, 60)


def gpus(house: House) -> float:
    return sum(node["gpus"] for node in house.client.cluster()["nodes"])


def test_nodes_that_join_and_leave_raise_and_lower_shares_and_are_used(tmp_path: Path, database_url: str) -> None:
    with opened_ray(0) as ray:
        ray.add_node("first", cpus=2, gpus=1)
        house = house_of(tmp_path / "home", database_url, ray)
        try:
            house.start_api()
            house.start_dispatcher()
            until(lambda: gpus(house) == 1, 60)
            wanted = request(trials=40, seconds=4.0, resources={"cpus": 0.25, "gpus": 0.25})
            search_id = house.client.submit(wanted)["id"]
            running(house, search_id)
            until(lambda: row(house, search_id).quota == 4, 60)
            ray.add_node("second", cpus=2, gpus=1)
            until(lambda: (gpus(house), row(house, search_id).quota) == (2, 8), 60)
            until(lambda: len(nodes_of_trials(house, search_id)) == 2, PATIENCE)  # the new slots are used
            done = {t["id"] for t in house.client.trials(search_id) if t["status"] == "succeeded"}
            ray.kill_node("second")
            until(lambda: (gpus(house), row(house, search_id).quota) == (1, 4), 120)
            assert len(house.client.cluster()["nodes"]) == 2, "the head and the first"
            ended = house.finished(search_id, 2 * PATIENCE)
            assert ended["status"] == "succeeded"
            trials = list(house.client.trials(search_id))
            assert {t["status"] for t in trials} == {"succeeded"}
            assert done <= {t["id"] for t in trials}
        finally:
            house.stop()


def nodes_of_trials(house: House, search_id: str) -> set[str]:
    with reading(house.engine) as session:
        rows = session.execute(
            select(Trial.node).where(Trial.search_id == search_id, Trial.status == "running", Trial.node.is_not(None))
        )
        return set(rows.scalars())


def test_a_dispatcher_outlives_the_head_of_its_cluster(tmp_path: Path, database_url: str) -> None:
    with opened_ray(2) as ray:
        house = house_of(tmp_path / "home", database_url, ray, ATTUNE_RAY_PATIENCE="4")
        try:
            house.start_api()
            house.start_dispatcher()
            search_id = house.client.submit(request(trials=6, seconds=1.0))["id"]
            running(house, search_id)
            driver, dispatcher = house.driver(search_id), house.processes["dispatcher"]
            ray.kill_node("head")
            started = time.monotonic()
            until(lambda: not driver.is_running() or driver.status() == psutil.STATUS_ZOMBIE, 40)
            until(lambda: row(house, search_id).status == "queued", 20)
            assert time.monotonic() - started < 40
            assert row(house, search_id).deaths == 0
            until(lambda: "ray.away" in house.log("dispatcher"), 30)
            assert dispatcher.poll() is None
            ray.start_head()
            ended = house.finished(search_id, PATIENCE)
            assert ended["status"] == "succeeded"
            assert dispatcher.poll() is None, "the same process went on"
        finally:
            house.stop()


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_dispatcher_whose_local_ray_dies_says_so_and_ends(tmp_path: Path, sqlite_template: Path, part: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(sqlite_template, home / "attune.db")
    short = tempfile.mkdtemp(prefix="attune-")  # Ray's sockets lie below it
    house = house_of(home, f"sqlite:///{home / 'attune.db'}", None, ATTUNE_SLOTS="1", TMPDIR=short)
    try:
        house.start_api()
        house.start_dispatcher()
        search_id = house.client.submit(request(trials=4, seconds=1.0))["id"]
        running(house, search_id)
        dispatcher = house.processes["dispatcher"]
        [process] = [p for p in psutil.Process(dispatcher.pid).children() if p.name() == part]
        process.kill()
        assert dispatcher.wait(40) == 4
        assert "Its local Ray has died" in house.log("dispatcher")
        assert part in house.log("dispatcher")
        assert row(house, search_id).status == "queued"
        until(lambda: len(house.all_processes()) == 1, 30)  # the API
        house.start_dispatcher()
        assert house.finished(search_id, PATIENCE)["status"] == "succeeded"
    finally:
        house.stop()
        shutil.rmtree(short, ignore_errors=True)

"""GET cluster: nodes, who runs what, and what waits; on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from db import catalog, claims, engine
from db.engine import writing
from db.models import SEARCH_STATUSES, Node, Search
from service.cluster.logic import process
from tests.service.support import Driver, architecture, engine_of, submit

URL = "/api/v1/cluster"


def publish(client: TestClient, node: str, **document: Any) -> None:
    with writing(engine_of(client)) as session:
        catalog.publish_node(session, node, document)


def seen(client: TestClient) -> dict[str, Any]:
    answer = client.get(URL)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert isinstance(body, dict)
    return body


def test_an_empty_cluster(any_client: TestClient) -> None:
    found = seen(any_client)
    assert (found["nodes"], found["drivers"], found["dispatchers"], found["queued"]) == ([], [], [], [])
    assert (found["cpus"], found["gpus"], found["slots"], found["running"]) == (0, 0, 0, 0)
    assert set(found["searches"]) == set(SEARCH_STATUSES)


def test_nodes_that_count_and_nodes_that_do_not(any_client: TestClient) -> None:
    publish(any_client, "a", cpus=4, gpus=1, host="n1")
    publish(any_client, "b", cpus=2.5, gpus=0, host="n2")
    publish(any_client, "c", cpus=8, gpus=2, host="n3", storage_problem="n3 sees another store: set ATTUNE_STORAGE")
    publish(any_client, "d", cpus=16, gpus=0, host="n4")
    with writing(engine_of(any_client)) as session:
        past = engine.now(session) - timedelta(minutes=5)
        session.execute(update(Node).where(Node.id == "d").values(heartbeat_at=past))
    found = seen(any_client)
    assert (found["cpus"], found["gpus"], found["slots"]) == (6.5, 1.0, 6)
    nodes = {node["id"]: node for node in found["nodes"]}
    assert {name: (node["host"], node["alive"], node["slots"]) for name, node in nodes.items()} == {
        "a": ("n1", True, 4), "b": ("n2", True, 2), "c": ("n3", True, 0), "d": ("n4", False, 16),
    }  # fmt: skip
    assert "ATTUNE_STORAGE" in nodes["c"]["storage_problem"]
    assert nodes["a"]["storage_problem"] is None
    assert nodes["d"]["silent_seconds"] == pytest.approx(300, abs=30)
    assert nodes["a"]["details"] == {"cpus": 4, "gpus": 1, "host": "n1"}


def test_who_runs_what(any_client: TestClient) -> None:
    publish(any_client, "a", cpus=4, gpus=0, host="n1", dispatcher="n1:10:boot-7@ray")
    first = submit(any_client, name="first", priority=9)["id"]
    driver = Driver(engine_of(any_client), first)
    on_a = driver.trial(architecture(("se", {"reduction": 4})), status="running", epochs=2)
    nowhere = driver.trial(architecture(("se", {"reduction": 8})), status="running")
    elsewhere = driver.trial(architecture(("se", {"reduction": 16})), status="running")
    driver.trial(architecture(("se", {"reduction": 2})), top1=0.9)
    driver.retry(on_a, "killed")
    driver.place(on_a, "a")
    driver.place(elsewhere, "a node that has left")
    driver.beat(active_seconds=1, seconds_left=90.0)
    with writing(engine_of(any_client)) as session:
        assert claims.register_driver(session, first, driver.attempt, "n2:4321:boot-99")
        claims.set_quotas(session, {first: 3})
    found = seen(any_client)
    assert found["running"] == 2, "what has no process yet does not run"
    node = found["nodes"][0]
    assert (node["running"], [trial["id"] for trial in node["trials"]]) == (1, [on_a])
    trial = node["trials"][0]
    assert (trial["search_id"], trial["number"], trial["epochs_planned"], trial["retries"]) == (first, 1, 2, 1)
    assert trial["label"] == "S3 b1: SE r=4"
    assert {trial["id"] for trial in found["unplaced"]} == {nowhere, elsewhere}
    (held,) = found["drivers"]
    assert (held["search_id"], held["name"], held["host"], held["pid"]) == (first, "first", "n2", 4321)
    assert (held["attempt"], held["quota"], held["running"], held["priority"]) == (1, 3, 2, 9)
    assert (held["seconds_left"], held["lost"]) == (90.0, False)
    assert found["dispatchers"] == [
        {"id": "driver", "host": "driver", "pid": None, "searches": 1},
        {"id": "n1:10", "host": "n1", "pid": 10, "searches": 0},
    ]
    driver.end()
    after = seen(any_client)
    assert (after["running"], after["drivers"], after["unplaced"]) == (0, [], [])


def test_a_search_whose_lease_has_run_out_is_lost(any_client: TestClient) -> None:
    found = submit(any_client)["id"]
    Driver(engine_of(any_client), found)
    with writing(engine_of(any_client)) as session:
        past = engine.now(session) - timedelta(seconds=5)
        session.execute(update(Search).where(Search.id == found).values(lease_expires_at=past, heartbeat_at=past))
    (held,) = seen(any_client)["drivers"]
    assert held["lost"]
    assert (held["host"], held["pid"]) == (None, None)
    assert held["silent_seconds"] >= 5


def test_the_queue_in_the_order_in_which_it_starts_and_why_it_waits(any_client: TestClient) -> None:
    low = submit(any_client, name="low", priority=1)["id"]
    high = submit(any_client, name="high", priority=9, resources={"gpus": 2})["id"]
    paused = submit(any_client, name="paused")["id"]
    any_client.post(f"/api/v1/searches/{paused}/pause")
    queued = seen(any_client)["queued"]
    assert [(item["id"], item["name"]) for item in queued] == [(high, "high"), (low, "low")]
    assert "no node has joined" in queued[0]["waiting_reason"]
    assert queued[1]["waiting_reason"] is None
    assert all(0 <= item["waiting_seconds"] < 60 for item in queued)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("host:12", ("host", 12)),
        ("host:12:ab-7", ("host", 12)),
        ("fe80::1:12:ab-7", ("fe80::1", 12)),
        ("host", ("host", None)),
        ("", ("", None)),
        ("host:x", ("host:x", None)),
    ],
)
def test_names_of_processes(name: str, expected: tuple[str, int | None]) -> None:
    assert process(name) == expected

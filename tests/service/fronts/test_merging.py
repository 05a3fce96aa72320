"""Fronts of several searches in one answer, against a plain count of what beats what."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from db.engine import writing
from db.models import Trial
from search.pareto import Bounds, Objective
from tests.service.support import Driver, architecture, engine_of, submit

SE2, SE4, CBAM = (architecture((kind, {"reduction": r})) for kind, r in (("se", 2), ("se", 4), ("cbam", 2)))


def filled(client: TestClient, name: str, *found: tuple[Any, float, int], **changes: Any) -> str:
    """A finished search with its baseline and these trials (architecture, top1, MACs)."""
    search: str = submit(client, name=name, **changes)["id"]
    driver = Driver(engine_of(client), search)
    driver.trial(architecture(), role="baseline", phase="controls", top1=0.80, macs=10_000)
    for placed, top1, macs in found:
        driver.trial(placed, top1=top1, macs=macs)
    driver.end()
    return search


def compared(client: TestClient, *ids: str, **query: str) -> dict[str, Any]:
    answer = client.get("/api/v1/fronts", params={"search": list(ids)} | query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_merged_front_is_what_none_of_them_beats(any_client: TestClient) -> None:
    first = filled(any_client, "first", (SE2, 0.90, 12_000), (SE4, 0.84, 11_000))
    second = filled(any_client, "second", (CBAM, 0.86, 11_000), (SE2, 0.90, 12_000))
    found = compared(any_client, first, second)
    assert [axis["metric"] for axis in found["axes"]] == ["top1", "macs"]
    assert [each["name"] for each in found["searches"]] == ["first", "second"]
    told = [(each["point"]["values"]["top1"], each["search_ids"]) for each in found["merged"]]
    assert told == [(0.80, [first, second]), (0.86, [second]), (0.90, [first, second])]
    for each in found["searches"]:
        own = any_client.get(f"/api/v1/searches/{each['search_id']}/front").json()
        assert (each["points"], each["baseline"]) == (own["points"], own["baseline"])
        assert (each["trials"], each["trial_seconds"]) == (3, 6.0)
    assert found["same_data"] is True


def test_hypervolumes_are_measured_in_bounds_that_hold_all(any_client: TestClient) -> None:
    ids = []
    objectives = (Objective("top1", "max"), Objective("macs", "min"))
    for name, worst in (("narrow", 20_000.0), ("wide", 40_000.0)):
        search = submit(any_client, name=name)["id"]
        driver = Driver(engine_of(any_client), search)
        bounds = Bounds(objectives, (1.0, 10_000.0), (0.0, worst))
        driver.progress(bounds={"objectives": bounds.to_json()})
        driver.trial(architecture(), role="baseline", phase="controls", top1=0.5, macs=25_000)
        driver.end()
        ids.append(search)
    found = compared(any_client, *ids)
    assert found["reference_point"] == {"top1": 0.0, "macs": 40_000.0}
    # half the height, and 15,000 of 30,000 along; in the narrow search's own bounds it would be nothing
    assert [each["hypervolume"] for each in found["searches"]] == [0.25, 0.25]
    assert found["hypervolume"] == 0.25
    assert compared(any_client, *ids, x="params", y="top1")["hypervolume"] is None


def test_other_metrics_and_plain_points(any_client: TestClient) -> None:
    search = filled(any_client, "one", (SE2, 0.9, 12_000))
    found = compared(any_client, search, x="seconds", y="top1", architectures="false")
    assert [axis["metric"] for axis in found["axes"]] == ["seconds", "top1"]
    assert all(point["architecture"] is None for point in found["searches"][0]["points"])
    other = filled(any_client, "other", objectives=[{"metric": "top1"}, {"metric": "params"}])
    assert [axis["metric"] for axis in compared(any_client, search, other)["axes"]] == ["top1", "macs"]


@pytest.mark.parametrize(
    "query", ["", "search=x", "x=top1&search={id}", "x=top1&y=top1&search={id}", "x=top1&y=no&search={id}"]
)
def test_what_cannot_be_compared_is_refused(client: TestClient, query: str) -> None:
    search = filled(client, "one")
    assert client.get(f"/api/v1/fronts?{query.format(id=search)}").status_code == 422
    assert client.get(f"/api/v1/fronts?search={search[:-4]}0000").status_code == 404
    many = "&".join(f"search={search[:-2]}{number:02d}" for number in range(9))
    assert client.get(f"/api/v1/fronts?{many}").status_code == 422


def test_latencies_of_different_devices_are_not_compared(any_client: TestClient) -> None:
    ids = []
    for name, device, latency in (("a", "NVIDIA H100", 2.0), ("b", "NVIDIA H100", 3.0), ("c", "AMD EPYC", 9.0)):
        search = filled(any_client, name)
        with writing(engine_of(any_client)) as session:
            measured = {"latency_ms": latency, "environment": {"device": device}}
            session.execute(update(Trial).where(Trial.search_id == search).values(measured))
        ids.append(search)
    same, other = ids[:2], ids[1:]
    assert compared(any_client, *same, x="latency_ms", y="top1")["merged"][0]["point"]["values"]["latency_ms"] == 2.0
    refused = any_client.get("/api/v1/fronts", params={"search": other, "x": "latency_ms", "y": "top1"})
    assert refused.status_code == 422
    (problem,) = refused.json()["errors"]
    assert problem["field"] == "x"
    assert "AMD EPYC, NVIDIA H100" in problem["message"]
    assert compared(any_client, *other, x="macs", y="top1")["same_data"]  # what no device decides compares

"""Trials, epochs and fronts over REST."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from search.pareto import Bounds, Objective
from service.fronts.pictures import MOST_POINTS, binned
from service.searches.logic import hypervolume_steps
from tests.service.support import BACKBONE, Driver, architecture, engine_of, submit

OBJECTIVES = (Objective("top1", "max"), Objective("macs", "min"))
BOUNDS = Bounds(OBJECTIVES, (1.0, 8_000.0), (0.0, 21_000.0))
PLACEMENTS: list[list[tuple[str, dict[str, Any]]]] = [
    [("se", {"reduction": 2})], [("se", {"reduction": 4})], [("se", {"reduction": 8})], [("cbam", {"reduction": 2})],
    [("cbam", {"reduction": 4})], [("cbam", {"reduction": 8})],
]  # fmt: skip
ROWS = [(0.90, 12_000), (0.91, 11_000), (0.85, 10_000), (0.95, 20_000), (0.94, 20_000), (0.70, 19_000)]


@pytest.fixture
def search(any_client: TestClient) -> tuple[TestClient, str, Driver]:
    found = submit(any_client)["id"]
    return any_client, found, Driver(engine_of(any_client), found)


def fill(driver: Driver) -> list[str]:
    """A baseline, a control and six explore trials; ids in that order."""
    ids = [driver.trial(architecture(), role="baseline", phase="controls", top1=0.80, macs=9_000)]
    ids.append(
        driver.trial(architecture(*PLACEMENTS[0], stage=1), role="control", phase="controls", top1=0.79, macs=9_500)
    )
    for placed, (top1, macs) in zip(PLACEMENTS, ROWS, strict=True):
        ids.append(driver.trial(architecture(*placed), top1=top1, macs=macs, loss=1 - top1))
    return ids


def test_trials_are_paged_sorted_and_filtered(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    ids = fill(driver)
    failed = driver.trial(architecture(("se", {"reduction": 16})), status="failed")
    url = f"/api/v1/searches/{found}/trials"

    def listed(**params: str | int) -> list[str]:
        seen: list[str] = []
        while True:
            page = client.get(url, params=params).json()
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                return seen
            params["cursor"] = page["next_cursor"]

    assert listed(limit=2) == [*ids, failed]
    tops = [0.80, 0.79, *(top1 for top1, _ in ROWS)]
    best_first = [trial for _, trial in sorted(zip(tops, ids, strict=True), reverse=True)]
    assert listed(sort="-top1", limit=3) == [*best_first, failed]
    assert listed(sort="top1", limit=4) == [*reversed(best_first), failed]
    assert listed(role="baseline") == ids[:1]
    assert listed(phase="explore", status="failed") == [failed]
    assert listed(status="failed,running") == [failed]
    for query in ("sort=nope", "role=x", "phase=explore,confirm", "status=ended", "limit=201"):
        assert client.get(f"{url}?{query}").status_code == 422, query


def test_one_trial_and_its_curve(search: tuple[TestClient, str, Driver]) -> None:
    client, _, driver = search
    found = architecture(("se", {"reduction": 4}))
    good = driver.trial(found, top1=0.9, epochs=3, gap=0.25)
    bad = driver.trial(architecture(("se", {"reduction": 2})), status="failed")
    seen = client.get(f"/api/v1/trials/{good}").json()
    assert seen["architecture"] == found.to_json()
    assert (seen["key"], seen["status"], seen["epochs"], seen["top1"]) == (found.key, "succeeded", 3, 0.9)
    assert seen["metrics"] == {"gap": 0.25}
    assert seen["label"] == "S3 b1: SE r=4"
    assert client.get(f"/api/v1/trials/{bad}").json()["error"]["traceback"] == "the traceback"
    curve = client.get(f"/api/v1/trials/{good}/epochs").json()["items"]
    assert [(row["epoch"], row["top1"]) for row in curve] == [(1, 0.9 / 3), (2, 0.9 * 2 / 3), (3, 0.9)]
    assert client.get(f"/api/v1/trials/{good[:-4]}0000").status_code == 404
    assert client.get(f"/api/v1/trials/{good[:-4]}0000/epochs").status_code == 404


def brute_front(points: list[tuple[float, float]]) -> set[int]:
    """Indices of (top1, macs) that no other beats: by definition."""
    return {
        i for i, (top1, macs) in enumerate(points)
        if not any(t >= top1 and m <= macs and (t, m) != (top1, macs) for t, m in points)
    }  # fmt: skip


def test_front(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    empty = client.get(f"/api/v1/searches/{found}/front").json()
    assert (empty["points"], empty["baseline"], empty["hypervolume"]) == ([], None, None)
    ids = fill(driver)
    driver.trial(architecture(("se", {"reduction": 16})), top1=0.99, macs=1, status="stopped")
    driver.trial(
        architecture(*PLACEMENTS[3]), phase="confirm", role="confirm", seed=1, top1=0.5, test_top1=0.92, macs=1
    )
    driver.trial(
        architecture(*PLACEMENTS[3]), phase="confirm", role="confirm", seed=2, top1=0.5, test_top1=0.96, macs=1
    )
    driver.progress(bounds={"objectives": BOUNDS.to_json()})
    front = client.get(f"/api/v1/searches/{found}/front").json()
    everything = [(0.80, 9_000), (0.79, 9_500), *ROWS]
    expected = brute_front(everything)
    assert {point["trial_id"] for point in front["points"]} == {ids[i] for i in expected}
    assert [point["values"]["top1"] for point in front["points"]] == sorted(everything[i][0] for i in expected)
    dominated = [i for i in range(8) if i not in expected]
    assert front["dominated"]["numbers"] == [i + 1 for i in dominated]
    assert front["dominated"]["values"] == {
        "top1": [everything[i][0] for i in dominated],
        "macs": [everything[i][1] for i in dominated],
    }
    assert front["dominated"]["count"] == 8 - len(expected)
    assert front["baseline"]["trial_id"] == ids[0]
    assert [point["trial_id"] for point in front["controls"]] == [ids[1]]
    assert front["hypervolume"] == pytest.approx(BOUNDS.hypervolume(everything))
    assert front["reference_point"] == {"top1": 0.0, "macs": 21_000.0}
    confirmed = next(point for point in front["points"] if point["trial_id"] == ids[5])
    assert (confirmed["seeds"], confirmed["label"]) == ([0, 1, 2], "S3 b1: CBAM r=2")
    assert confirmed["confirmed"]["mean"] == pytest.approx(0.94)
    assert confirmed["confirmed"]["sd"] == pytest.approx(0.02 * 2**0.5)
    reach = 12.7062 * 0.02  # Student's t of one degree of freedom, times the error of the mean
    assert (confirmed["confirmed"]["low"], confirmed["confirmed"]["high"]) == pytest.approx(
        (0.94 - reach, 0.94 + reach), rel=1e-4
    )
    assert confirmed["params"] == 1000
    steps = [(step["number"], step["hypervolume"]) for step in front["steps"]]
    assert steps[-1][1] == pytest.approx(front["hypervolume"], abs=1e-6)
    for number, volume in steps:
        assert volume == pytest.approx(BOUNDS.hypervolume(everything[:number]), abs=1e-6)
    bare = client.get(f"/api/v1/searches/{found}/front", params={"architectures": False}).json()
    assert all(point["architecture"] is None for point in bare["points"])
    assert confirmed["architecture"]["backbone"] == BACKBONE.to_json()


def test_front_on_other_metrics(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    fill(driver)
    driver.progress(bounds={"objectives": BOUNDS.to_json()})
    url = f"/api/v1/searches/{found}/front"
    front = client.get(url, params={"x": "loss", "y": "params"}).json()
    assert [axis["metric"] for axis in front["axes"]] == ["loss", "params"]
    assert [point["values"]["loss"] for point in front["points"]] == [pytest.approx(0.05)]
    assert front["hypervolume"] is None
    turned = client.get(url, params={"x": "macs", "y": "top1"}).json()
    assert turned["hypervolume"] == pytest.approx(client.get(url).json()["hypervolume"])
    assert len(client.get(url, params={"x": "macs", "y": "top1", "z": "loss"}).json()["axes"]) == 3
    for params in ({"x": "macs"}, {"x": "macs", "y": "macs"}, {"x": "nope", "y": "macs"}, {"z": "macs"}):
        assert client.get(url, params=params).status_code == 422, params


def test_front_is_sent_only_when_something_happened(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    url = f"/api/v1/searches/{found}/front"
    etag = client.get(url).headers["etag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    driver.trial(architecture(), top1=0.5)
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200


def test_many_dominated_points_are_binned() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random(MOST_POINTS + 1), rng.uniform(1e6, 9e6, MOST_POINTS + 1)
    grid = binned(x, y)
    assert sum(count for _, _, count in grid.cells) == MOST_POINTS + 1
    for column, row, count in grid.cells[:50]:
        inside = (x >= grid.x[column] - 1e-5) & (x <= grid.x[column + 1] + 1e-5)
        inside &= (y >= grid.y[row] - 1) & (y <= grid.y[row + 1] + 1)
        assert 0 < count <= inside.sum()


def test_hypervolume_steps_are_the_hypervolume_of_each_prefix() -> None:
    rng = np.random.default_rng(1)
    points = [(float(t), float(m)) for t, m in zip(rng.random(60), rng.uniform(7_000, 22_000, 60), strict=True)]
    steps = hypervolume_steps(BOUNDS, list(enumerate(points, start=1)))
    known = {step.number: step.hypervolume for step in steps}
    current = 0.0
    for number in range(1, len(points) + 1):
        current = known.get(number, current)
        assert current == pytest.approx(BOUNDS.hypervolume(points[:number]))

"""Trials, epochs and fronts over REST."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from db import artifacts
from db.engine import writing
from search.pareto import Bounds, Objective
from service.fronts.pictures import MOST_POINTS, binned
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


def test_progress_tells_which_trials_raised_the_hypervolume(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    fill(driver)
    url = f"/api/v1/searches/{found}/progress"
    assert client.get(url).json()["hypervolume_steps"] == [], "nothing to measure by yet"
    driver.progress(bounds={"objectives": BOUNDS.to_json()})
    points = [(0.80, 9_000), (0.79, 9_500), *ROWS]
    known = {step["number"]: step["hypervolume"] for step in client.get(url).json()["hypervolume_steps"]}
    current = 0.0
    for number in range(1, len(points) + 1):
        current = known.get(number, current)
        assert current == pytest.approx(BOUNDS.hypervolume(points[:number]))
    assert len(known) < len(points)


def test_what_is_out_of_the_ordinary_is_told_with_the_trial(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    mine = driver.trial(architecture(("se", {"reduction": 4})), status="running")
    other = driver.trial(architecture(("se", {"reduction": 2})), top1=0.5)
    driver.retry(mine, "killed")
    driver.note("checkpoint.corrupt", trial_id=mine, message="epoch 2 does not verify", epoch=2)
    driver.note("trial.resumed", trial_id=mine, message="goes on after epoch 1", epoch=1)
    driver.note("trial.resumed", trial_id=other, message="another one")
    driver.place(mine, "node-1")
    seen = client.get(f"/api/v1/trials/{mine}").json()
    assert [note["kind"] for note in seen["notes"]] == ["trial.retried", "checkpoint.corrupt", "trial.resumed"]
    assert seen["notes"][1]["data"] == {"message": "epoch 2 does not verify", "epoch": 2}
    assert seen["notes"][0]["data"]["error"]["kind"] == "killed"
    assert all("at" in note for note in seen["notes"])
    assert (seen["node"], seen["retries"], seen["retried"]) == ("node-1", 1, {"killed": 1})
    assert seen["busy_seconds"] == 3.0
    assert client.get(f"/api/v1/trials/{other}").json()["notes"][0]["data"]["message"] == "another one"
    listed = client.get(f"/api/v1/searches/{found}/trials").json()["items"]
    assert [(item["node"], item["retries"], item["busy_seconds"]) for item in listed] == [
        ("node-1", 1, 3.0),
        (None, 0, 0),
    ]


def test_artifacts_are_listed_with_their_place_in_the_store(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    trial = driver.trial(architecture(("se", {"reduction": 4})), top1=0.9)
    url = f"/api/v1/trials/{trial}/artifacts"
    assert client.get(url).json() == {"items": []}
    path = f"searches/{found}/{trial}/weights.safetensors"
    with writing(driver.engine) as session:
        artifacts.add(session, trial, driver.attempt, kind="weights", path=path, bytes=2**33, sha256="a" * 64)
        artifacts.add(session, trial, driver.attempt, kind="export", path=f"{path}.onnx", bytes=5, sha256="b" * 64)
    items = client.get(url).json()["items"]
    assert [(item["kind"], item["path"], item["bytes"], item["sha256"]) for item in items] == [
        ("export", f"{path}.onnx", 5, "b" * 64),
        ("weights", path, 2**33, "a" * 64),
    ]
    assert client.get(f"/api/v1/trials/{trial[:-4]}0000/artifacts").status_code == 404


def test_published_rows_of_the_same_backbone_stand_beside_the_front(client: TestClient) -> None:
    found = submit(client, backbone={"name": "resnet50"})["id"]
    rows = client.get(f"/api/v1/searches/{found}/front").json()["published"]
    catalog = client.get("/api/v1/catalog/published").json()["items"]
    cbam = next(r for r in catalog if "table 4" in r["source"] and (r["backbone"], r["module"]) == ("ResNet50", "CBAM"))
    mine = next(r for r in rows if r["source"] == cbam["source"] and r["module"] == "CBAM")
    assert mine["values"] == {"top1": cbam["metrics"]["top1"], "macs": pytest.approx(cbam["gmacs"] * 1e9)}
    assert {r["dataset"] for r in rows} == {"ImageNet-1K"}
    other = client.get(f"/api/v1/searches/{found}/front", params={"x": "params", "y": "loss"}).json()["published"]
    assert other == []
    assert client.get(f"/api/v1/searches/{submit(client)['id']}/front").json()["published"] == []

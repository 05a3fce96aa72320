"""The list, one trial, several searches compared, and the cluster."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from db import catalog, trials
from db.engine import writing
from tests.service.filling import Template


def listed(page: str) -> list[str]:
    return re.findall(r'<tr data-key="([^"]+)"', page)


def test_the_list_is_filtered_and_sorted_as_the_api_does(site: TestClient, rows: Template) -> None:
    queries: list[dict[str, str]] = [
        {"status": "running"}, {"name": "attention"}, {"tag": "demo"}, {"owner": "nobody"}, {"sort": "name"},
        {"sort": "-hypervolume", "status": "succeeded"},
    ]  # fmt: skip
    for query in queries:
        expected = [item["id"] for item in site.get("/api/v1/searches", params=query).json()["items"]]
        for path in ("/", "/live/searches"):
            page = site.get(path, params=query).text
            assert listed(page) == expected, query
            assert expected or "No search is like that." in page
    assert listed(site.get("/", params={"sort": "nothing", "status": "such"}).text) == listed(site.get("/").text)


def test_the_pages_of_the_list_hold_every_search_once(
    site: TestClient, rows: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dashboard.views.SEARCHES_SHOWN", 2)
    first = site.get("/", params={"tag": "demo"}).text
    older = re.search(r'href="([^"]+)">Older searches', first)
    assert older is not None
    second = site.get(unescape(older[1])).text
    assert listed(first) + listed(second) == [
        item["id"] for item in site.get("/api/v1/searches", params={"tag": "demo"}).json()["items"]
    ]


def best(site: TestClient, search: str) -> dict[str, Any]:
    found: dict[str, Any] = site.get(f"/api/v1/searches/{search}/trials?sort=-top1&limit=1").json()["items"][0]
    return found


def test_a_trial_shows_its_network_and_what_can_be_copied(site: TestClient, rows: Template) -> None:
    trial = best(site, rows.finished.id)
    page = site.get(f"/trials/{trial['id']}").text
    assert f"{100 * trial['top1']:.2f} %" in page
    shown = re.search(r'<code id="document">(.*?)</code>', page, re.DOTALL)
    assert shown is not None
    assert json.loads(unescape(shown[1])) == trial["architecture"]
    point = re.search(r'<code id="point">(.*?)</code>', page, re.DOTALL)
    assert point is not None
    spec = site.get(f"/api/v1/searches/{rows.finished.id}").json()["spec"]
    request = {name: spec[name] for name in ("name", "dataset", "backbone", "space")}
    request |= yaml.safe_load(unescape(point[1]))
    assert site.post("/api/v1/previews", json=request).status_code == 200  # a point that another search can try


def test_what_the_sites_cost_adds_up_to_the_trial(site: TestClient, rows: Template) -> None:
    trial = best(site, rows.finished.id)
    page = site.get(f"/live/trials/{trial['id']}/costs").text
    sites = re.findall(r'<th scope="row">(stage \d+, [^<]+)</th>', page)
    assert len(sites) == len(trial["architecture"]["placements"])
    units = {"": 1, "k": 1e3, "M": 1e6}
    added = [float(n) * units[u] for n, u in re.findall(r'<td class="num">([\d.]+) (k|M|)MAC</td>', page)]
    plain = next(t for t in site.get(f"/api/v1/searches/{rows.finished.id}/trials?role=baseline").json()["items"])
    assert sum(added) == pytest.approx(trial["macs"] - plain["macs"], rel=0.01)


def test_a_failed_trial_shows_its_traceback(site: TestClient, rows: Template) -> None:
    space = rows.running.plan.space
    trial = rows.running.trial(space.architecture(tuple(size - 1 for size in space.sizes)), status="failed")
    page = site.get(f"/trials/{trial}").text
    assert "nan loss" in page
    assert "The loss became NaN in epoch 3." in page
    assert "Traceback" in page


def test_a_trial_that_was_stopped_early_says_how_it_stood_and_is_no_alarm(site: TestClient, rows: Template) -> None:
    space = rows.running.plan.space
    why = "Stopped after epoch 3 of 8: non-dominated rank 2, place 7 of 10 at rung 2, where the best 3 go on."
    trial = rows.running.trial(space.architecture(tuple(size - 2 for size in space.sizes)), status="running")
    assert trial is not None
    with writing(rows.running.engine) as session:
        trials.finish(
            session, trial, rows.running.attempt, status="stopped", metrics={"top1": 0.4}, epochs=3,
            error={"kind": "stopped", "message": why, "traceback": ""},
        )  # fmt: skip
    page = site.get(f"/trials/{trial}").text
    assert "stopped early" in page
    assert why in page
    assert "notice-bad" not in page
    address = f"/api/v1/searches/{rows.running.id}"
    assert why in site.get(f"/live/searches/{rows.running.id}/trials", params={"status": "stopped"}).text
    assert site.get(address).json()["counts"]["stopped"] == 1
    assert [item["id"] for item in site.get(f"{address}/trials?status=stopped").json()["items"]] == [trial]
    assert "1 stopped" in site.get(f"/live/searches/{rows.running.id}").text
    told = re.search(r"<li[^>]*>(?:(?!</li>).)*Stopped after epoch 3(?:(?!</li>).)*</li>",
                     site.get(f"/live/searches/{rows.running.id}/events").text, re.DOTALL)  # fmt: skip
    assert told is not None
    assert 'class="bad"' not in told[0]


def test_searches_are_compared(site: TestClient, rows: Template) -> None:
    ids = [rows.finished.id, rows.running.id]
    page = site.get("/compare", params={"search": ids}).text
    assert "2 searches compared" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    points = [
        (point["values"]["top1"], point["values"]["macs"], point["key"])
        for each in ids
        for point in site.get(f"/api/v1/searches/{each}/front").json()["points"]
    ]
    beaten = {p for p in points for q in points if q[0] >= p[0] and q[1] <= p[1] and q[:2] != p[:2]}
    merged = page.split('class="trials merged"')[1].split("</table>")[0]
    assert merged.count('class="num strong"') == len({(p[0], p[2]) for p in points if p not in beaten})
    told = site.get("/live/compare", params={"search": ids}).json()
    assert [each["search_id"] for each in told["searches"]] == ids
    assert all(point["architecture"] is None for each in told["searches"] for point in each["points"])


@pytest.mark.parametrize(
    "query", ["", "search=x", "&".join(f"search=00000000-0000-7000-8000-00000000000{i}" for i in range(9))]
)
def test_what_cannot_be_compared_is_told(site: TestClient, query: str) -> None:
    answer = site.get(f"/compare?{query}")
    assert answer.status_code == 422
    assert "Choose up to 8 searches" in answer.text


def test_the_cluster_shows_who_runs_what(site: TestClient, rows: Template) -> None:
    assert "No worker has joined yet" in site.get("/cluster").text
    with writing(rows.running.engine) as session:
        catalog.publish_node(session, "n1", {"host": "gpu-<1>", "cpus": 4, "gpus": 1})
    space = rows.running.plan.space
    rows.running.trial(space.architecture(tuple(size - 1 for size in space.sizes)), status="running")
    page = site.get("/live/cluster").text
    assert "gpu-&lt;1&gt;" in page
    assert "0 of 4 slots are busy" in page
    assert f'href="/searches/{rows.running.id}"' in page


def test_a_trial_says_how_its_steps_were_computed(site: TestClient, rows: Template) -> None:
    space = rows.running.plan.space
    trial = rows.running.trial(space.architecture(tuple(size - 2 for size in space.sizes)), status="running")
    assert trial is not None
    execution = {"mode": "cuda_graphs", "reason": "9000 steps of 10 ms were left.", "compile_seconds": 41.26,
                 "eager_step_seconds": 0.01, "compiled_step_seconds": 0.004}  # fmt: skip
    with writing(rows.running.engine) as session:
        trials.finish(
            session, trial, rows.running.attempt, status="succeeded", metrics={"top1": 0.4}, epochs=8,
            environment={"device": "a GPU", "execution": execution},
        )  # fmt: skip
    page = unescape(site.get(f"/trials/{trial}").text)
    assert "CUDA graphs: 9000 steps of 10 ms were left. Compiling took 41.3 s. A step took 4 ms, eagerly 10 ms." in page
    assert site.get(f"/api/v1/trials/{trial}").json()["environment"]["execution"] == execution

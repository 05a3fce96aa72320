"""Start, health, metrics, catalog, previews, the description, and what happens when things go wrong."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from db import catalog
from db.engine import writing
from db.upgrades import downgrade
from search.architecture import Architecture, Task
from search.models import build
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.support import BACKBONE, SPEC, engine_of, opened, submit

START = """
import sys
from fastapi.testclient import TestClient
from service.app import create_app
from service.settings import ServiceSettings
with TestClient(create_app(ServiceSettings(database_url=sys.argv[1])), base_url="http://localhost") as client:
    assert client.get("/readyz").status_code == 200
    for kind in ("modules", "backbones", "datasets", "weights", "strategies", "recipes", "metrics", "published"):
        assert client.get(f"/api/v1/catalog/{kind}").status_code == 200, kind
    body = {"name": "x", "dataset": {"name": "digits"}}
    assert client.post("/api/v1/searches", json=body).status_code == int(sys.argv[2])
print([name for name in ("torch", "ray") if name in sys.modules])
"""


def test_api_process_loads_neither_torch_nor_ray(client: TestClient, sqlite_url: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", START, sqlite_url, "201"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "[]"
    assert client.get("/api/v1/searches").json()["items"][0]["name"] == "x"


def test_empty_database_is_brought_up_to_date(empty_database_url: str) -> None:
    with opened(empty_database_url) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        submit(client)


def test_old_schema_is_not_ready(sqlite_url: str) -> None:
    with opened(sqlite_url, publish=False) as client:
        assert client.get("/readyz").status_code == 200
        downgrade(engine_of(client))
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert client.get("/healthz").status_code == 200


def test_database_away_is_503(tmp_path: Path) -> None:
    url = f"postgresql://nobody@127.0.0.1:1/{tmp_path.name}"
    with opened(url, publish=False) as client:
        for path in ("/readyz", "/api/v1/searches", "/api/v1/cluster"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert answer.headers["content-type"] == "application/problem+json"
        assert client.get("/healthz").status_code == 200
        assert "attune_database_up 0.0" in client.get("/metrics").text


def test_unforeseen_error_is_a_500_problem_with_an_id(
    sqlite_url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("canary-secret")

    monkeypatch.setattr("service.searches.logic.shown", broken)
    with opened(sqlite_url) as client:
        answer = client.get("/api/v1/searches")
    assert answer.status_code == 500
    problem = answer.json()
    assert problem["id"] == answer.headers["x-request-id"]
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    found = next(line for line in lines if line["event"] == "unexpected_error")
    assert (found["request_id"], found["error"]) == (problem["id"], "RuntimeError")
    assert any("broken" in frame for frame in found["frames"])
    assert "canary-secret" not in answer.text + json.dumps(lines)


def test_each_request_is_one_line_with_its_route(sqlite_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(sqlite_url) as client:
        found = submit(client)["id"]
        capfd.readouterr()
        asked = [
            ("GET", f"/api/v1/searches/{found}", "/api/v1/searches/{search_id}", 200),
            ("POST", f"/api/v1/searches/{found}/pause", "/api/v1/searches/{search_id}/{command}", 202),
            ("PATCH", f"/api/v1/searches/{found}", "/api/v1/searches/{search_id}", 422),
            ("GET", "/api/v1/trials/nobody", "/api/v1/trials/{trial_id}", 404),
            ("GET", f"/nowhere/{found}", "none", 404),
            ("GET", "/static/no-such-file", "/static/{name}", 404),
        ]
        answers = [client.request(method, path, json={} if method == "PATCH" else None) for method, path, _, _ in asked]
    text = capfd.readouterr().err
    lines = [line for line in map(json.loads, text.splitlines()) if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        (method, route, status) for method, _, route, status in asked
    ]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for answer in answers]
    assert all(0 <= line["seconds"] < 60 for line in lines)
    assert found not in text


def test_an_outage_is_logged_by_its_kind_alone(sqlite_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with opened("postgresql://canary-user:canary-secret@127.0.0.1:1/canary", publish=False) as client:
        capfd.readouterr()
        assert client.get("/api/v1/searches").status_code == 503
    text = capfd.readouterr().err
    told = [line for line in map(json.loads, text.splitlines()) if line["event"] == "database_unavailable"]
    assert told[0]["error"] == "OperationalError"
    assert told[0]["transient"] is True
    assert "canary" not in text


def test_every_answer_has_safe_headers(client: TestClient) -> None:
    for path in ("/healthz", "/api/v1/searches", "/nothing", "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_catalog(client: TestClient) -> None:
    def items(kind: str) -> dict[str, dict[str, Any]]:
        return {
            item.get("name", str(index)): item
            for index, item in enumerate(client.get(f"/api/v1/catalog/{kind}").json()["items"])
        }

    modules = items("modules")
    assert {"se", "cbam"} <= modules.keys()
    assert modules["se"]["positions"][0] == "residual"
    assert modules["cbam"]["options"]["properties"]["kernel"]["default"] == 7
    assert {"resnet14", "resnet50"} <= items("backbones").keys()
    assert items("datasets")["digits"]["classes"] == 10
    assert {"nsga2", "random"} <= items("strategies").keys()
    halving = client.get("/api/v1/catalog/strategies").json()["early_stopping"][0]
    assert (halving["name"], halving["options"]["properties"]["eta"]["default"]) == ("halving", 3)
    assert items("recipes")["quick"]["recipe"]["optimizer"] == "sgd"
    metrics = items("metrics")
    assert (metrics["top1"]["objective"], metrics["test_top1"]["objective"]) == (True, False)
    rows = client.get("/api/v1/catalog/published").json()["items"]
    assert len(rows) == 117
    assert all(row["check"] is None for row in rows)
    assert items("weights") == {}
    assert client.get("/api/v1/catalog/nope").status_code == 404


def test_published_rows_beside_ours(client: TestClient) -> None:
    rows = client.get("/api/v1/catalog/published", params={"check": "true"}).json()["items"]
    resnet50 = next(row for row in rows if (row["backbone"], row["module"]) == ("ResNet50", "CBAM"))
    assert resnet50["check"] == {
        "params": 28_089_624,
        "macs": 3_864_362_102,
        "params_m": {"printed": 28.09, "ours": 28.09, "verdict": "exact", "reason": ""},
        "gmacs": {"printed": 3.864, "ours": 3.864, "verdict": "exact", "reason": ""},
    }
    compared = [row["check"][cost] for row in rows for cost in ("params_m", "gmacs") if row["check"][cost]]
    assert all(one["reason"] for one in compared if one["verdict"] == "deviates")
    assert any(row["check"]["params"] is None for row in rows)


def test_weights_that_machines_agree_on(any_client: TestClient) -> None:
    with writing(engine_of(any_client)) as session:
        catalog.publish_node(session, "a", {"cpus": 4, "weights": {"mine": "a" * 64, "ours": "a" * 64}})
        catalog.publish_node(session, "b", {"cpus": 4, "weights": {"ours": "b" * 64}})
    known = any_client.get("/api/v1/catalog/weights").json()["items"]
    assert known == [{"name": "mine", "fingerprint": "a" * 64}]
    body = {"name": "x", "dataset": {"name": "digits"}, "init": {"weights": "mine"}}
    preview = any_client.post("/api/v1/previews", json=body).json()
    assert preview["spec"]["init"] == {"weights": "mine", "fingerprint": "a" * 64}
    for name in ("ours", "/etc/passwd"):
        answer = any_client.post("/api/v1/searches", json={**body, "init": {"weights": name}})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "init.weights"
        assert answer.json()["errors"][0]["choices"] == ["mine"]


def test_unreadable_data_set_is_left_out(client: TestClient) -> None:
    entry = catalog.PublishedDataset("future", "f", {"name": "future", "kind": "video"})
    with writing(engine_of(client)) as session:
        catalog.publish_datasets(session, [entry], published_by="a newer worker")
    names = [item["name"] for item in client.get("/api/v1/catalog/datasets").json()["items"]]
    assert names == ["digits"]


def test_preview(any_client: TestClient) -> None:
    spec = SPEC | {"space": {"modules": ["none", "se"], "reduction": [2, 4], "pattern": ["every"]}}
    answer = any_client.post("/api/v1/previews", json=spec)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["count"] == str(3**3)
    assert [decision["choices"] for decision in found["decisions"]] == [3, 3, 3]
    plain = build(Architecture.make(BACKBONE, {}), Task((1, 8, 8), 10))
    assert found["baseline"]["params"] == sum(p.numel() for p in plain.parameters())
    for metric in ("params", "macs"):
        for end in ("least", "greatest"):
            added = sum(decision["adds"][metric][end] for decision in found["decisions"])
            assert found["cost"][metric][end] == found["baseline"][metric] + added
    assert [control["role"] for control in found["controls"]] == ["baseline", "control"]
    assert found["budget"] == {
        "trials": 8, "explore": 8, "controls": 2, "confirm": 0, "total": 10, "covers_space": False,
    }  # fmt: skip
    assert found["estimate"] is None
    assert any_client.get("/api/v1/searches").json()["items"] == []


def test_preview_counts_exactly_beyond_floats(client: TestClient) -> None:
    spec = SPEC | {"backbone": {"name": "resnet110", "width": 64}, "budget": {"trials": 10}}
    spec["space"] = {"modules": ["se"], "reduction": [2], "pattern": [[1], [2], [3], "every"]}
    assert client.post("/api/v1/previews", json=spec).json()["count"] == str(4**3)


def test_costs_are_counted_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.post("/api/v1/previews", json=SPEC).json()

    def never(*_: Any) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr("search.cost.count", never)
    with opened(str(engine_of(client).url)) as fresh:
        assert fresh.post("/api/v1/previews", json=SPEC).json()["cost"] == first["cost"]


def test_description(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/api/v1/searches"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/SearchSpec"}
    for example in body["examples"].values():
        value = example["value"] | {"dataset": {"name": "digits"}}
        assert client.post("/api/v1/searches", json=value).status_code == 201
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(schema)))
    assert references <= schema["components"]["schemas"].keys()


def test_docs_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert not re.findall(r"https?://|<script|style=", page)
    assert "/api/v1/searches/{search_id}/front" in page
    assert client.get("/docs/style.css").headers["content-type"].startswith("text/css")


def test_plugins_are_imported(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attune_test_plugin.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    create_app(ServiceSettings(database_url=sqlite_url, plugins=" attune_test_plugin ,"))
    assert sys.modules["attune_test_plugin"].LOADED
    with pytest.raises(ModuleNotFoundError):
        create_app(ServiceSettings(database_url=sqlite_url, plugins="no_such_plugin"))


def test_servers_own_errors_are_logged_without_their_message(
    client: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    create_app(ServiceSettings(database_url=str(engine_of(client).url)))  # takes the standard error of this test
    try:
        raise RuntimeError("canary-secret")
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    line = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert (line["event"], line["error"], line["level"]) == ("Exception in ASGI application", "RuntimeError", "error")
    assert "canary" not in json.dumps(line)

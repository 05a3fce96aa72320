"""Searches over REST: submit, find, command, page; on both databases where rows are written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from db import catalog
from db.engine import writing
from search.recipes import RECIPES
from service.settings import ServiceSettings
from tests.service.support import SPEC, Driver, architecture, engine_of, opened, publish_digits, served, submit

URL = "/api/v1/searches"
NOWHERE = "01a1fd29-e958-76c4-afee-650dbdac53ab"


def test_submitted_search_is_stored_with_every_default(any_client: TestClient) -> None:
    answer = any_client.post(URL, json={"name": "x", "dataset": {"name": "digits"}})
    assert answer.status_code == 201
    found = answer.json()
    assert answer.headers["location"] == f"{URL}/{found['id']}"
    assert found["id"][14] == "7"
    assert (found["status"], found["phase"], found["counts"]["total"], found["best"]) == ("queued", None, 0, None)
    assert found["spec"]["training"]["epochs"] == RECIPES.get("quick").recipe.epochs
    assert found["spec"]["dataset"] == {"name": "digits", "seed": 0}
    assert found["spec_version"] == 1
    again = any_client.get(answer.headers["location"])
    assert again.json() == found
    assert again.headers["etag"] == '"1"'


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE searches; --", "<script>alert(1)</script>", "größer 🔍 日本語", "%", "a" * 200]
)
def test_odd_names_are_kept(any_client: TestClient, name: str) -> None:
    found = submit(any_client, name=name)
    assert any_client.get(f"{URL}/{found['id']}").json()["name"] == name
    listed = any_client.get(URL, params={"name": name}).json()["items"]
    assert [item["name"] for item in listed] == [name]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "negative budget": ({"budget": {"trials": -1}}, "budget.trials"),
    "zero trials": ({"budget": {"trials": 0}}, "budget.trials"),
    "text for an integer": ({"priority": "5"}, "priority"),
    "boolean for an integer": ({"priority": True}, "priority"),
    "float for an integer": ({"priority": 1.0}, "priority"),
    "unknown field": ({"naem": "x"}, "naem"),
    "empty space": ({"space": {"modules": ["none"]}}, "space.modules"),
    "no modules": ({"space": {"modules": []}}, "space.modules"),
    "min over max": ({"constraints": [{"metric": "params", "at_least": 2.0, "at_most": 1.0}]}, "constraints.0"),
    "duplicate choices": ({"space": {"modules": ["se", "se"]}}, "space.modules.1"),
    "unknown module": ({"space": {"modules": ["sse"]}}, "space.modules.0"),
    "unknown backbone": ({"backbone": {"name": "resnet9"}}, "backbone.name"),
    "unknown data set": ({"dataset": {"name": "../../etc/passwd"}}, "dataset.name"),
    "absolute path": ({"dataset": {"name": "/etc/passwd"}}, "dataset.name"),
    "file URL": ({"dataset": {"name": "file:///etc/passwd"}}, "dataset.name"),
    "unknown objective": ({"objectives": [{"metric": "top9"}, {"metric": "macs"}]}, "objectives.0.metric"),
    "unknown strategy": ({"strategy": {"name": "luck"}}, "strategy.name"),
    "ratio over the channels": ({"space": {"reduction": [4096]}}, "space.reduction"),
    "even kernel": ({"space": {"modules": [{"kind": "cbam", "kernel": 4}]}}, "space.modules.0.kernel"),
    "blank name": ({"name": "  "}, "name"),
    "long name": ({"name": "a" * 201}, "name"),
    "bidi name": ({"name": "a\u202eb"}, "name"),
    "control name": ({"name": "a\u0007b"}, "name"),
    "too many GPUs": ({"resources": {"gpus": 9}}, "resources.gpus"),
    "impossible constraint": ({"constraints": [{"metric": "macs", "at_most": 1.0}]}, "constraints.0.at_most"),
    "unknown option": ({"dataset": {"name": "digits", "root": "/"}}, "dataset.root"),
}


@pytest.mark.parametrize("path", [URL, "/api/v1/previews"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_422_with_the_field(sqlite_url: str, path: str, name: str) -> None:
    change, field = WRONG[name]
    with opened(sqlite_url, max_gpus=8) as client:
        answer = client.post(path, json=SPEC | change)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        fields = [error["field"] for error in answer.json()["errors"]]
        assert any(found.startswith(field) for found in fields), fields
        if name.startswith("unknown"):
            assert answer.json()["errors"][0]["choices"]
        assert client.get(URL).json()["items"] == []


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null", b"{}"])
def test_a_search_is_an_object(client: TestClient, body: bytes) -> None:
    assert client.post(URL, content=body, headers={"Content-Type": "application/json"}).status_code == 422


def test_all_problems_are_told_at_once(client: TestClient) -> None:
    change = {"backbone": {"name": "x"}, "strategy": {"name": "y"}, "dataset": {"name": "z"}}
    answer = client.post(URL, json=SPEC | change)
    assert {error["field"] for error in answer.json()["errors"]} == {"backbone.name", "strategy.name", "dataset.name"}


def test_more_gpus_than_there_are_waits(any_client: TestClient) -> None:
    first = submit(any_client, resources={"gpus": 2})
    assert "no node" in first["waiting_reason"]
    with writing(engine_of(any_client)) as session:
        catalog.publish_node(session, "a", {"cpus": 4, "gpus": 1})
    assert "the largest node has 1" in submit(any_client, resources={"gpus": 2})["waiting_reason"]
    assert submit(any_client, resources={"gpus": 0.5})["waiting_reason"] is None


def test_gpus_auto_needs_a_gpu_to_be_measured_on(any_client: TestClient) -> None:
    asked = SPEC | {"resources": {"gpus": "auto"}}
    with writing(engine_of(any_client)) as session:
        catalog.publish_node(session, "a", {"cpus": 4, "gpus": 0})
    for path in (URL, "/api/v1/previews"):
        [problem] = any_client.post(path, json=asked).json()["errors"]
        assert problem["field"] == "resources.gpus"
        assert "0" in problem["choices"]
    with writing(engine_of(any_client)) as session:
        catalog.publish_node(session, "b", {"cpus": 4, "gpus": 2})
    resources = submit(any_client, resources={"gpus": "auto"})["spec"]["resources"]
    assert (resources["gpus"], resources["trials_per_gpu"]) == (1, "auto")


def test_same_key_gives_the_same_search(any_client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = any_client.post(URL, json=SPEC, headers=headers)
    turned = dict(reversed(SPEC.items()))
    second = any_client.post(URL, json=turned, headers=headers)
    assert (second.status_code, second.json()) == (201, first.json())
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert any_client.post(URL, json=SPEC | {"name": "other"}, headers=headers).status_code == 422
    assert len(any_client.get(URL).json()["items"]) == 1


def test_refused_request_leaves_its_key_free(any_client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    assert any_client.post(URL, json=SPEC | {"priority": 99}, headers=headers).status_code == 422
    assert any_client.post(URL, json=SPEC, headers=headers).status_code == 201


def test_key_is_replayed_when_the_request_would_now_be_refused(any_client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = any_client.post(URL, json=SPEC, headers=headers)
    with writing(engine_of(any_client)) as session:
        catalog.publish_datasets(session, [], published_by="test")
    assert any_client.post(URL, json=SPEC).status_code == 422
    assert any_client.post(URL, json=SPEC, headers=headers).json() == first.json()


@pytest.mark.parametrize("key", ["", "x" * 201, "a\u00e9", "a\tb"])
def test_bad_keys_are_400(client: TestClient, key: str) -> None:
    answer = client.post(URL, json=SPEC, headers={"Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 400
    assert client.get(URL).json()["items"] == []


def test_twenty_at_once_with_one_key_are_one_search(database_url: str) -> None:
    with served(ServiceSettings(database_url=database_url)) as url, httpx.Client(base_url=url, timeout=30) as client:
        with opened(database_url, publish=False) as direct:
            publish_digits(engine_of(direct))

        def post(_: int) -> httpx.Response:
            return client.post(URL, json=SPEC, headers={"Idempotency-Key": "one"})

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(post, range(20)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
        assert len(client.get(URL).json()["items"]) == 1


def test_queued_search_obeys_at_once(any_client: TestClient) -> None:
    path = f"{URL}/{submit(any_client)['id']}"
    assert any_client.post(f"{path}/pause").json()["status"] == "paused"
    assert any_client.post(f"{path}/resume").json()["status"] == "queued"
    answer = any_client.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    for command in ("cancel", "pause", "resume"):
        refused = any_client.post(f"{path}/{command}")
        assert refused.status_code == 409
        assert "finished" in refused.json()["detail"]


def test_running_search_is_asked(any_client: TestClient) -> None:
    found = submit(any_client)
    driver = Driver(engine_of(any_client), found["id"])
    path = f"{URL}/{found['id']}"
    answer = any_client.post(f"{path}/cancel").json()
    assert (answer["status"], answer["command"]) == ("running", "cancel")
    assert any_client.delete(path).status_code == 409
    driver.end("cancelled")
    assert any_client.get(path).json()["status"] == "cancelled"
    assert any_client.delete(path).status_code == 204
    assert any_client.get(path).status_code == 404


def test_if_match(any_client: TestClient) -> None:
    path = f"{URL}/{submit(any_client)['id']}"
    stale = any_client.get(path).headers["etag"]
    fresh = any_client.post(f"{path}/pause", headers={"If-Match": stale}).headers["etag"]
    assert fresh != stale
    assert any_client.post(f"{path}/cancel", headers={"If-Match": stale}).status_code == 412
    assert any_client.delete(path, headers={"If-Match": stale}).status_code == 412
    assert any_client.post(f"{path}/cancel", headers={"If-Match": "nonsense"}).status_code == 400
    assert any_client.post(f"{path}/cancel", headers={"If-Match": fresh}).status_code == 202


def test_best_counts_and_progress(any_client: TestClient) -> None:
    found = submit(any_client)
    driver = Driver(engine_of(any_client), found["id"])
    driver.trial(architecture(), role="baseline", phase="controls", top1=0.8)
    best = driver.trial(architecture(("se", {"reduction": 4})), top1=0.9, seconds=4.0)
    driver.trial(architecture(("se", {"reduction": 2})), status="failed")
    driver.trial(architecture(("se", {"reduction": 8})), status="running")
    driver.progress(phase="explore", best_trial_id=best, hypervolume=0.5)
    seen = any_client.get(f"{URL}/{found['id']}").json()
    assert seen["counts"] == {
        "running": 1, "succeeded": 2, "stopped": 0, "failed": 1, "cancelled": 0, "reused": 0, "total": 4,
    }  # fmt: skip
    assert (seen["best"]["id"], seen["best"]["top1"], seen["phase"]) == (best, 0.9, "explore")
    progress = any_client.get(f"{URL}/{found['id']}/progress").json()
    assert (progress["planned"], progress["done"], progress["hypervolume"]) == (8, 3, 0.5)
    assert progress["last_event"] == seen["last_event"]


def test_the_drivers_estimate_is_shown_while_it_works(any_client: TestClient) -> None:
    found = submit(any_client)
    path = f"{URL}/{found['id']}"
    driver = Driver(engine_of(any_client), found["id"])
    assert any_client.get(path).json()["seconds_left"] is None
    driver.beat(active_seconds=60.0, seconds_left=720.5)
    assert (any_client.get(path).json()["seconds_left"], any_client.get(path).json()["active_seconds"]) == (720.5, 60.0)
    assert any_client.get(f"{path}/progress").json()["seconds_left"] == 720.5
    driver.end()
    assert (any_client.get(path).json()["seconds_left"], any_client.get(path).json()["active_seconds"]) == (None, 60.0)
    assert any_client.get(f"{path}/progress").json()["seconds_left"] is None


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-priority", "hypervolume"])
def test_pages_hold_every_search_once(any_client: TestClient, sort: str) -> None:
    expected = {submit(any_client, name=f"n{index % 3}", priority=index % 4)["id"] for index in range(11)}
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        params = {"sort": sort, "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = any_client.get(URL, params=params).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert (len(seen), set(seen)) == (11, expected)


def test_filters(any_client: TestClient) -> None:
    first = submit(any_client, name="Alpha", tags=["a", "b"], owner="ann")["id"]
    second = submit(any_client, name="beta", tags=["b"])["id"]
    any_client.post(f"{URL}/{second}/cancel")

    def ids(**params: str) -> set[str]:
        return {item["id"] for item in any_client.get(URL, params=params).json()["items"]}

    assert ids(status="queued") == {first}
    assert ids(status="queued,cancelled") == {first, second}
    assert ids(tag="a") == {first}
    assert ids(tag="b") == {first, second}
    assert ids(name="ALPH") == {first}
    assert ids(owner="ann") == {first}
    assert ids(name="_") == set()


def test_cursor_of_another_list_is_400(client: TestClient) -> None:
    for _ in range(3):
        submit(client)
    cursor = client.get(URL, params={"limit": 1}).json()["next_cursor"]
    assert client.get(URL, params={"limit": 2, "cursor": cursor}).status_code == 200
    for params in ({"cursor": cursor, "sort": "name"}, {"cursor": cursor, "status": "queued"}, {"cursor": cursor[:-2]},
                   {"cursor": "x"}, {"cursor": ""}, {"cursor": "W10.abc"}, {"cursor": "é" * 50}):  # fmt: skip
        answer = client.get(URL, params=params)
        assert answer.status_code == 400, params
        assert answer.json()["errors"][0]["field"] == "cursor"


BAD_QUERIES = (
    "limit=-5", "limit=0", "limit=1000000000", "limit=x", "limit=1&limit=2", "nope=1", "sort=spec", "sort=",
    "status=done", "status=queued&status=running", "name=%00", "tag=a%00", "owner=%ED%A0%80&owner=x",
)  # fmt: skip
UNKNOWN = (
    NOWHERE, "x", "..%2f..%2fetc%2fpasswd", "%00", NOWHERE.upper(), "1" * 5000, f"{NOWHERE}/front", f"{NOWHERE}/trials",
    f"{NOWHERE}/progress", f"{NOWHERE}/events", f"{NOWHERE}/nope", f"{NOWHERE}/",
)  # fmt: skip


def test_bad_queries_are_422(any_client: TestClient) -> None:
    for query in BAD_QUERIES:
        answer = any_client.get(f"{URL}?{query}")
        assert answer.status_code == 422, (query, answer.text)
        assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


def test_unknown_ids_are_404(any_client: TestClient) -> None:
    for path in UNKNOWN:
        answer = any_client.get(f"{URL}/{path}")
        # a path under an id may be one that only takes POST
        assert answer.status_code == (405 if path.endswith("/nope") else 404), (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_wrong_methods_are_405(client: TestClient) -> None:
    for method, path in (("PUT", URL), ("PUT", f"{URL}/{NOWHERE}"), ("DELETE", URL), ("POST", "/healthz")):
        answer = client.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"]
        assert answer.headers["content-type"] == "application/problem+json"

"""PATCH, extend and retry: what may change of a search that is there, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.support import Driver, architecture, engine_of, submit

URL = "/api/v1/searches"
NOWHERE = f"{URL}/01a1fd29-e958-76c4-afee-650dbdac53ab"
BUDGET = {"trials": 8, "hours": 2.0}


def ended(client: TestClient, status: str = "succeeded", failed: int = 0, **changes: Any) -> tuple[str, Driver]:
    """The address of a search that has ended with one result and so many failed trials, and its driver."""
    found = submit(client, **changes)["id"]
    driver = Driver(engine_of(client), found)
    driver.trial(architecture(("se", {"reduction": 4})), top1=0.9)
    for reduction in range(1, failed + 1):
        driver.trial(architecture(("cbam", {"reduction": reduction})), status="failed")
    driver.end(status)
    return f"{URL}/{found}", driver


def problem(answer: Any, status: int) -> dict[str, str]:
    """The messages of a refusal by field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["field"]: error["message"] for error in answer.json().get("errors", [])}


def test_name_tags_and_priority_change_at_any_time(any_client: TestClient) -> None:
    path = f"{URL}/{submit(any_client, name='old', tags=['a'])['id']}"
    first = any_client.patch(path, json={"name": "new <b>", "priority": 9})
    assert first.status_code == 200
    assert (first.json()["name"], first.json()["tags"], first.json()["priority"]) == ("new <b>", ["a"], 9)
    assert first.json()["spec"]["name"] == "old", "the request stays what was submitted"
    Driver(engine_of(any_client), path.rsplit("/", 1)[1])
    assert any_client.patch(path, json={"tags": ["b", "c"]}).json()["tags"] == ["b", "c"]
    seen = any_client.get(path)
    assert (seen.json()["name"], seen.json()["tags"], seen.json()["priority"]) == ("new <b>", ["b", "c"], 9)
    assert [item["name"] for item in any_client.get(URL, params={"tag": "c"}).json()["items"]] == ["new <b>"]


def test_a_change_that_changes_nothing_keeps_the_version(any_client: TestClient) -> None:
    path = f"{URL}/{submit(any_client, priority=3)['id']}"
    before = any_client.get(path).headers["etag"]
    assert any_client.patch(path, json={"priority": 3}).headers["etag"] == before
    assert any_client.patch(path, json={"priority": 4}).headers["etag"] != before


def test_edits_of_two_people_do_not_overwrite_each_other(any_client: TestClient) -> None:
    path = f"{URL}/{submit(any_client)['id']}"
    seen = any_client.get(path).headers["etag"]
    mine = any_client.patch(path, json={"name": "mine"}, headers={"If-Match": seen})
    assert mine.status_code == 200
    problem(any_client.patch(path, json={"name": "yours"}, headers={"If-Match": seen}), 412)
    assert any_client.get(path).json()["name"] == "mine"
    problem(any_client.patch(path, json={"name": "x"}, headers={"If-Match": "7"}), 400)
    assert any_client.patch(path, json={"name": "x"}, headers={"If-Match": mine.headers["etag"]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ([], ""),
        ("x", ""),
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"priority": 10}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 1.0}, "priority"),
        ({"tags": "a"}, "tags"),
        ({"tags": [""]}, "tags.0"),
        ({"tags": ["t"] * 21}, "tags"),
        ({"status": "succeeded"}, "status"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_bad_edits_name_the_field(client: TestClient, body: Any, field: str) -> None:
    path = f"{URL}/{submit(client)['id']}"
    before = client.get(path).json()
    found = problem(client.patch(path, json=body), 422)
    assert field in found
    assert client.get(path).json() == before


def test_an_unknown_field_lists_the_valid_ones(client: TestClient) -> None:
    answer = client.patch(f"{URL}/{submit(client)['id']}", json={"budget": 3})
    assert answer.json()["errors"][0]["choices"] == ["name", "tags", "priority"]


def test_changes_of_nothing_are_404(any_client: TestClient) -> None:
    problem(any_client.patch(NOWHERE, json={"priority": 1}), 404)
    problem(any_client.post(f"{NOWHERE}/extend", json={"trials": 9}), 404)
    problem(any_client.post(f"{NOWHERE}/retry"), 404)


def test_a_finished_search_is_extended(any_client: TestClient) -> None:
    path, _ = ended(any_client, budget=BUDGET)
    best = any_client.get(path).json()
    answer = any_client.post(f"{path}/extend", json={"trials": 20, "hours": 3})
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert (found["status"], found["finished_at"], found["error"]) == ("queued", None, None)
    assert found["spec"] == best["spec"] | {"budget": best["spec"]["budget"] | {"trials": 20, "hours": 3.0}}
    assert found["counts"] == best["counts"], "what has been found stays"
    assert any_client.get(path).headers["etag"] == answer.headers["etag"]
    driver = Driver(engine_of(any_client), found["id"])
    driver.trial(architecture(("se", {"reduction": 8})), top1=0.95)
    driver.end()
    assert any_client.get(path).json()["counts"]["succeeded"] == 2


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_search_that_ended_badly_can_be_extended_too(any_client: TestClient, status: str) -> None:
    path, _ = ended(any_client, status)
    assert any_client.post(f"{path}/extend", json={"trials": 9}).json()["status"] == "queued"


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"trials": 8}, "trials", "over 8"),
        ({"trials": 7, "hours": 9}, "trials", "over 8"),
        ({"trials": 9, "hours": 2}, "hours", "over 2"),
        ({"hours": 1.5}, "hours", "over 2"),
        ({"gpu_hours": 5}, "gpu_hours", "no such limit"),
        ({"trials": -1}, "trials", "over 8"),
        ({"trials": 1_000_001}, "trials", "at most 1,000,000"),
        ({"hours": 10_001}, "hours", "at most 10,000"),
        ({"trials": None}, "trials", "null"),
        ({"trials": "9"}, "trials", "whole number"),
        ({"trials": 9.0}, "trials", "whole number"),
        ({"trials": True}, "trials", "whole number"),
        ({"epochs": 9}, "epochs", "Unknown"),
        ({}, "", "trials, hours, gpu_hours"),
    ],
)
def test_a_budget_that_is_not_larger_is_refused(client: TestClient, body: Any, field: str, says: str) -> None:
    path, _ = ended(client, budget=BUDGET)
    before = client.get(path).json()
    found = problem(client.post(f"{path}/extend", json=body), 422)
    assert says in found[field]
    assert client.get(path).json() == before


def test_only_a_finished_search_is_extended_or_retried(any_client: TestClient) -> None:
    path = f"{URL}/{submit(any_client)['id']}"
    for step in ("queued", "running"):
        if step == "running":
            Driver(engine_of(any_client), path.rsplit("/", 1)[1])
        for command, body in (("extend", {"trials": 100}), ("retry", None)):
            answer = any_client.post(f"{path}/{command}", json=body)
            problem(answer, 409)
            assert answer.json()["detail"].endswith(f"this one is {step}.")


def test_failed_trials_are_tried_again(any_client: TestClient) -> None:
    path, _ = ended(any_client, failed=2)
    answer = any_client.post(f"{path}/retry")
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "queued"
    assert answer.json()["spec"] == any_client.get(path).json()["spec"]
    assert any_client.get(path).headers["etag"] == answer.headers["etag"]


def test_nothing_to_retry_is_said(any_client: TestClient) -> None:
    path, _ = ended(any_client)
    answer = any_client.post(f"{path}/retry")
    problem(answer, 409)
    assert "nothing to try again" in answer.json()["detail"]
    assert any_client.get(path).json()["status"] == "succeeded"


def test_a_repeat_with_the_same_key_changes_nothing_again(any_client: TestClient) -> None:
    path, _ = ended(any_client, failed=1)
    headers = {"Idempotency-Key": "k"}
    first = any_client.post(f"{path}/extend", json={"trials": 9}, headers=headers)
    again = any_client.post(f"{path}/extend", json={"trials": 9}, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["etag"] == first.headers["etag"] == any_client.get(path).headers["etag"]
    problem(any_client.post(f"{path}/extend", json={"trials": 10}, headers=headers), 422)
    # the same key means another thing for another address
    other, _ = ended(any_client, failed=1, priority=9)
    assert any_client.post(f"{other}/retry", headers=headers).status_code == 202
    assert any_client.post(f"{other}/retry", headers=headers).headers["idempotency-replayed"] == "true"
    problem(any_client.post(f"{other}/retry"), 409)


def test_a_refused_extension_leaves_its_key_free(any_client: TestClient) -> None:
    path, _ = ended(any_client)
    headers = {"Idempotency-Key": "k"}
    problem(any_client.post(f"{path}/extend", json={"trials": 1}, headers=headers), 422)
    assert any_client.post(f"{path}/extend", json={"trials": 9}, headers=headers).status_code == 202


def test_stale_extensions_and_retries_are_412(any_client: TestClient) -> None:
    path, _ = ended(any_client, failed=1)
    stale = any_client.get(path).headers["etag"]
    any_client.patch(path, json={"priority": 1})
    problem(any_client.post(f"{path}/extend", json={"trials": 9}, headers={"If-Match": stale}), 412)
    problem(any_client.post(f"{path}/retry", headers={"If-Match": stale}), 412)
    assert any_client.get(path).json()["status"] == "succeeded"

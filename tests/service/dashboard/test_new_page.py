"""A new search: form, text and preview say the same."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from service.dashboard import examples
from tests.service.filling import Template


def draft(site: TestClient, **body: Any) -> dict[str, Any]:
    answer = site.post("/live/drafts", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def meaning(site: TestClient, request: Any) -> str:
    answer = site.post("/live/drafts/preview", json=request)
    assert answer.status_code == 200, answer.text
    assert answer.json()["problems"] == []
    found: str = answer.json()["preview"]
    return found


@pytest.mark.parametrize("name", sorted(examples.listed()))
def test_every_example_is_valid_and_counted(site: TestClient, name: str) -> None:
    text = examples.listed()[name].text
    found = draft(site, text=text)
    assert found["problems"] == []
    assert found["request"] == yaml.safe_load(text)
    preview = site.post("/api/v1/previews", json=found["request"]).json()
    assert f"{int(preview['count']):,}".replace(",", "\u202f") in meaning(site, found["request"])
    assert f"over {preview['sites']} sites" in meaning(site, found["request"])
    assert text.splitlines()[0] in site.get("/new", params={"example": name}).text


def test_text_and_request_are_two_ways_to_write_the_same(site: TestClient) -> None:
    request = yaml.safe_load(examples.listed()["budget"].text)
    written = draft(site, request=request)
    assert yaml.safe_load(written["text"]) == request
    assert draft(site, text=written["text"])["request"] == request


def test_what_is_wrong_is_told_as_the_api_tells_it(site: TestClient) -> None:
    request = {"name": "x", "dataset": {"name": "cluttered-digits"}, "space": {"modules": ["none", "sse"]}, "extra": 1}
    told = draft(site, request=request)
    refused = site.post("/api/v1/searches", json=request)
    assert refused.status_code == 422
    assert [p["field"] for p in told["problems"]] == [p["field"] for p in refused.json()["errors"]]
    assert site.post("/live/drafts/preview", json=request).json() == {"problems": told["problems"], "preview": ""}


def test_a_budget_that_nothing_keeps_is_told_by_the_preview(site: TestClient) -> None:
    request = yaml.safe_load(examples.listed()["budget"].text) | {"constraints": [{"metric": "params", "at_most": 10}]}
    assert draft(site, request=request)["problems"] == []
    assert site.post("/live/drafts/preview", json=request).json()["problems"][0]["field"].startswith("constraints")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "Line 1"),
        ("name: x\nname: y", "Line 2: the key 'name' is written twice"),
        ("a: &a [1]\nb: *a", "Line 2: aliases are not allowed"),
        ("name: 2024-01-01", "Dates"),
        ("name: !!python/object:os.system x", "Line 1"),
        ("", "object"),
        ("- 1", "object"),
        ("name: \x07", "not YAML"),
        ("[" * 3000, ""),
        ("1: 2", ""),
    ],
)
def test_no_text_is_too_strange(site: TestClient, text: str, message: str) -> None:
    found = draft(site, text=text)
    assert found["problems"]
    assert message in found["problems"][0]["message"]


@pytest.mark.parametrize("body", [{}, [], {"text": 3}, {"text": "x", "request": {}}, {"text": "x" * 50_001}])
def test_what_is_no_draft_is_refused(site: TestClient, body: Any) -> None:
    assert site.post("/live/drafts", json=body).status_code == 422


def test_an_earlier_search_is_a_start_without_its_defaults(site: TestClient, rows: Template) -> None:
    page = site.get("/new", params={"from": rows.finished.id}).text
    assert "where does attention pay" in page
    assert "constraints" not in page.split("<textarea")[1].split("</textarea>")[0]
    from html import unescape

    text = unescape(page.split("<textarea")[1].split(">", 1)[1].split("</textarea>")[0])
    found = draft(site, text=text)
    assert found["problems"] == []
    again = site.post("/api/v1/previews", json=found["request"]).json()["spec"]
    first = site.get(f"/api/v1/searches/{rows.finished.id}").json()["spec"]
    assert again == first
    assert site.get("/new", params={"from": f"{rows.finished.id[:-4]}0000"}).status_code == 404

"""The pages as they are sent: escaped, with a strict policy, and saying what the API says."""

from __future__ import annotations

import gzip
import html
import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from db.engine import writing
from db.models import Search
from service.dashboard import assets
from tests.service.filling import Template
from tests.service.support import opened

NAME = "<script>alert(1)</script>"


def test_a_name_is_shown_escaped(site: TestClient, rows: Template) -> None:
    for path in ("/", f"/searches/{rows.running.id}", f"/live/searches/{rows.running.id}"):
        text = site.get(path).text
        assert NAME not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@pytest.mark.parametrize(
    "path", ["/", "/searches/{id}", "/searches/00000000-0000-7000-8000-000000000000", "/nothing-such"]
)
def test_nothing_is_inline_and_nothing_from_elsewhere(site: TestClient, rows: Template, path: str) -> None:
    answer = site.get(path.format(id=rows.finished.id), headers={"Accept": "text/html"})
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", answer.text)
    assert all(
        tag.startswith('<script src="/static/') or tag.startswith('<script type="module" src="/static/')
        for tag in re.findall(r"<script[^>]*>", answer.text)
    )
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)


def test_the_front_on_the_page_is_that_of_the_api(site: TestClient, rows: Template) -> None:
    points = site.get(f"/api/v1/searches/{rows.finished.id}/front").json()["points"]
    page = site.get(f"/searches/{rows.finished.id}").text
    shown = re.findall(r'data-key="f([0-9a-f-]{36})"', page.split('class="beside"')[0])
    assert shown == [point["trial_id"] for point in points]
    for point in points:
        assert f"{100 * point['values']['top1']:.2f} %" in page


def test_the_list_is_newest_first_with_the_best_of_each(site: TestClient, rows: Template) -> None:
    page = site.get("/").text
    assert re.findall(r'<tr data-key="([^"]+)"', page) == [rows.queued.id, rows.running.id, rows.finished.id]
    assert rows.finished.best is not None
    assert f"{100 * rows.finished.best[0]:.2f} %" in page


def test_an_empty_house_offers_the_ready_example(sqlite_url: str) -> None:
    with opened(sqlite_url) as empty:
        page = empty.get("/").text
        assert "Start this search" in page
        assert "cluttered-digits" in page
        request = empty.get("/live/example").json()
        assert request["dataset"]["name"] == "cluttered-digits"


def test_the_ready_example_is_a_valid_request(site: TestClient) -> None:
    answer = site.post("/api/v1/searches", json=site.get("/live/example").json())
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("path", ["/searches/00000000-0000-7000-8000-000000000000", "/searches/x", "/live/trials/x"])
def test_what_is_not_there_is_a_page_too(site: TestClient, path: str) -> None:
    answer = site.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "Nothing is here" in answer.text


def test_with_a_token_the_pages_ask_for_it_and_the_styles_do_not(rows: Template) -> None:
    with opened(rows.url, publish=False, token="s3cret-token-of-the-test") as site:
        for path in ("/", f"/searches/{rows.finished.id}", f"/live/searches/{rows.finished.id}", "/live/example"):
            answer = site.get(path)
            assert answer.status_code == 401
            assert 'name="token"' in answer.text
            assert "where does attention pay" not in answer.text
        assert site.get("/static/attune.css").status_code == 200
        assert site.get("/login", params={"token": "s3cret-token-of-the-test"}).status_code == 303
        assert site.get("/").status_code == 200


def test_signing_in_leads_to_the_page_that_was_asked_for_and_nowhere_else(rows: Template) -> None:
    token = "s3cret-token-of-the-test"
    with opened(rows.url, publish=False, token=token) as site:
        asked = f"/searches/{rows.finished.id}?sel=3,5&x=params"
        form = site.get(asked).text
        found = re.search(r'name="next" value="([^"]+)"', form)
        assert found is not None
        assert html.unescape(found[1]) == asked
        answer = site.get("/login", params={"token": token, "next": asked})
        assert (answer.status_code, answer.headers["Location"]) == (303, asked)
        for elsewhere in ("//evil.example", "/\\evil.example", "https://evil.example", "evil", "/\t/evil.example", ""):
            answer = site.get("/login", params={"token": token, "next": elsewhere})
            assert (answer.status_code, answer.headers["Location"]) == (303, "/"), elsewhere


def test_a_tip_says_what_a_point_is(site: TestClient, rows: Template) -> None:
    assert rows.finished.best is not None
    top1, trial = rows.finished.best
    text = site.get(f"/live/trials/{trial}").text
    assert f"{100 * top1:.2f} %" in text
    assert "points" in text


@pytest.mark.parametrize("name", sorted(assets.names()))
def test_assets_are_sent_packed_and_not_twice(site: TestClient, name: str) -> None:
    answer = site.get(f"/static/{name}", headers={"Accept-Encoding": "identity"})
    assert answer.status_code == 200
    asset = assets.load(name)
    assert answer.content == asset.content
    if asset.packed is not None:
        assert gzip.decompress(asset.packed) == asset.content
        assert site.get(f"/static/{name}", headers={"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"
    assert site.get(f"/static/{name}", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize("name", ["pages.py", "..%2fpages.py", "%2e%2e%2fpages.py", ""])
def test_nothing_else_is_served(site: TestClient, name: str) -> None:
    assert site.get(f"/static/{name}").status_code == 404


def test_a_cursor_of_another_list_is_refused(site: TestClient) -> None:
    assert site.get("/", params={"cursor": "forged"}).status_code == 400


@pytest.mark.parametrize("path", ["/live/searches", "/live/cluster"])
def test_a_part_that_has_not_changed_is_neither_rendered_nor_sent(
    site: TestClient, rows: Template, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.dashboard import rendering

    with writing(rows.running.engine) as session:
        for row in session.scalars(select(Search).where(Search.status == "queued")):
            row.status = "paused"  # how long it waits is shown by the second
    first = site.get(path)
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    shown = rendering.page
    monkeypatch.setattr(rendering, "page", lambda *_, **__: pytest.fail("rendered again"))
    again = site.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.text, again.headers["ETag"]) == (304, "", etag)
    monkeypatch.setattr(rendering, "page", shown)
    space = rows.running.plan.space
    rows.running.trial(space.architecture(tuple(size - 1 for size in space.sizes)), status="running")
    changed = site.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag
    assert changed.text != first.text
    assert site.get(path, headers={"If-None-Match": changed.headers["ETag"]}).status_code == 304


def test_every_filter_of_the_list_has_an_etag_of_its_own(site: TestClient, rows: Template) -> None:
    etag = site.get("/live/searches").headers["ETag"]
    assert site.get("/live/searches?status=failed", headers={"If-None-Match": etag}).status_code == 200
    assert site.get("/").headers["Cache-Control"] == "no-store"


def test_no_line_ends_within_a_strength(site: TestClient, rows: Template) -> None:
    for path in ("/", f"/searches/{rows.finished.id}"):
        text = re.sub(r'aria-label="[^"]*"', "", site.get(path).text)
        assert "r\u00a0=\u00a0" in text
        assert not re.search(r"\br = \d", text)

"""The parts of a search's page: its table, its files, what its plots draw, its events."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from tests.service.filling import Template


def fragment(site: TestClient, rows: Template, **query: str) -> str:
    answer = site.get(f"/live/searches/{rows.finished.id}/trials", params=query)
    assert answer.status_code == 200
    return answer.text


def numbers(text: str) -> list[int]:
    return [int(found) for found in re.findall(r'<tr [^>]*data-number="(\d+)"', text)]


def listed(site: TestClient, rows: Template, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.get(f"/api/v1/searches/{rows.finished.id}/trials", params=query).json()["items"]
    return found


def test_the_table_sorts_and_filters_as_the_api_does(site: TestClient, rows: Template) -> None:
    for sort in ("-number", "number", "-top1", "macs"):
        assert numbers(fragment(site, rows, sort=sort)) == [item["number"] for item in listed(site, rows, sort=sort)]
    assert (
        numbers(fragment(site, rows, role="control")) == [t["number"] for t in listed(site, rows, role="control")][::-1]
    )
    assert "No trial is like that." in fragment(site, rows, status="failed")
    assert numbers(fragment(site, rows, sort="nothing-such", status="x")) == numbers(fragment(site, rows))


def test_columns_are_those_chosen(site: TestClient, rows: Template) -> None:
    text = fragment(site, rows, cols="top5,seed,nothing-such")
    heads = re.findall(r'<button type="button" class="sort"[^>]*>([^<]+)</button>', text)
    assert heads == ["#", "Top-5", "Seed"]
    assert 'aria-sort="descending"><button type="button" class="sort" data-sort="number">#' in text


def test_pages_of_the_table_hold_every_trial_once(
    site: TestClient, rows: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dashboard.table.PER_PAGE", 3)
    seen: list[int] = []
    url: str | None = f"/live/searches/{rows.finished.id}/trials?sort=-top1"
    while url:
        text = site.get(url).text
        seen += numbers(text)
        found = re.search(r'data-load="([^"]+)">Next page', text)
        url = found and found[1].replace("&amp;", "&")
    assert seen == [item["number"] for item in listed(site, rows, sort="-top1")]


def test_the_files_hold_what_the_api_says(site: TestClient, rows: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.dashboard.table.EXPORTED_AT_ONCE", 3)
    items = listed(site, rows, sort="-top1")
    answer = site.get(f"/searches/{rows.finished.id}/trials.csv", params={"sort": "-top1"})
    assert "attachment" in answer.headers["Content-Disposition"]
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(int(row["number"]), float(row["top1"]), int(row["macs"])) for row in table] == [
        (item["number"], item["top1"], item["macs"]) for item in items
    ]
    parquet = site.get(f"/searches/{rows.finished.id}/trials.parquet", params={"sort": "-top1"})
    found = pq.read_table(io.BytesIO(parquet.content)).to_pylist()
    assert [(row["number"], row["top1"], row["key"]) for row in found] == [
        (item["number"], item["top1"], item["key"]) for item in items
    ]
    assert all(row["placement"] for row in found)
    assert site.get(f"/searches/{rows.finished.id[:-4]}0000/trials.csv").status_code == 404


def test_paths_say_what_each_trial_holds(site: TestClient, rows: Template) -> None:
    told = site.get(f"/live/searches/{rows.finished.id}/paths").json()
    items = {item["number"]: item for item in listed(site, rows)}
    front = {p["number"] for p in site.get(f"/api/v1/searches/{rows.finished.id}/front").json()["points"]}
    assert [path[0] for path in told["paths"]] == sorted(items)
    for number, places, top1, macs, on_front in told["paths"]:
        assert (top1, macs, bool(on_front)) == (items[number]["top1"], items[number]["macs"], number in front)
        for stage, place in zip(told["stages"], places, strict=True):
            placements = items[number]["architecture"]["placements"]
            mine = {m["kind"] for site, ms in placements.items() if site.startswith(f"{stage}.") for m in ms}
            assert set(told["fills"][place]["kinds"]) == mine


def test_curves_of_the_trials_asked_for(site: TestClient, rows: Template) -> None:
    url = f"/live/searches/{rows.finished.id}/curves"
    usual = site.get(url).json()["curves"]
    assert usual[0]["role"] == "baseline"
    some = site.get(url, params={"numbers": "2,4"}).json()["curves"]
    assert [curve["number"] for curve in some] == [2, 4]
    trial = next(item for item in listed(site, rows) if item["number"] == 4)
    epochs = site.get(f"/api/v1/trials/{trial['id']}/epochs").json()["items"]
    assert some[1]["top1"] == [epoch["top1"] for epoch in epochs]
    assert site.get(url, params={"numbers": "2,x"}).status_code == 422


def test_events_are_told_newest_first_and_all_of_them(
    site: TestClient, rows: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dashboard.events.PER_PAGE", 7)
    url: str | None = f"/live/searches/{rows.finished.id}/events"
    told: list[str] = []
    while url:
        text = site.get(url).text
        told += re.findall(r"<span>([^<]+)</span></li>", text)
        found = re.search(r'data-older="([^"]+)"', text)
        url = found and found[1]
    assert told[-1] == "Submitted"
    assert told[0] == "The search is succeeded"
    assert sum("started" in text for text in told) == len(listed(site, rows))
    assert any(re.match(r"Trial \d+ succeeded .*: \d\d\.\d\d % top-1", text) for text in told)


def test_a_finding_stands_above_all_where_the_data_support_it(site: TestClient, rows: Template) -> None:
    from db import claims
    from db.engine import writing

    running = rows.running
    assert 'class="finding"' not in site.get(f"/searches/{running.id}").text
    running.explore(4)
    running.confirm(top=2, seeds=6)
    finding = site.get(f"/api/v1/searches/{running.id}/effects").json()["finding"]
    text = site.get(f"/live/searches/{running.id}").text
    if finding is None:
        assert 'class="finding"' not in text
    else:
        assert f'<p class="finding">{finding["sentence"]}</p>' in text
    with writing(running.engine) as session:
        assert claims.release(session, running.id, running.attempt, "succeeded")


def test_the_report_needs_no_hand(site: TestClient, rows: Template) -> None:
    text = site.get(f"/searches/{rows.finished.id}/report").text
    assert "Print or save as PDF" in text
    assert "Pareto front" in text
    assert "cluttered-digits" in text

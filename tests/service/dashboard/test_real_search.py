"""Every page and every button over a real service: API, dispatcher, Ray and real training."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.e2e.house import House, opened_house, opened_ray
from tests.service.dashboard.browsing import opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG = 180_000
"""Milliseconds in which training ends on cores that others use too."""
NAME = "<script>alert(1)</script>"
DIGITS = {
    "name": NAME,
    "dataset": {"name": "digits"},
    "backbone": {"name": "resnet18", "width": 4},
    "space": {"modules": ["none", "se"], "reduction": [2], "pattern": ["every"]},
    "training": {"epochs": 2},
    "budget": {"trials": 6},
}
TROUBLED = {
    "name": "fails once",
    "dataset": {"name": "troubles", "trouble": "raise", "sites": 1, "times": 1, "marker": 4711},
    "backbone": {"name": "resnet8", "width": 8},
    "space": {"modules": ["none", "se"], "reduction": [2], "pattern": ["last"]},
    "training": {"epochs": 1},
    "controls": False,
    "budget": {"trials": 7},
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[House]:
    home = tmp_path_factory.mktemp("house")
    shutil.copy(sqlite_template, home / "attune.db")
    with (
        opened_ray(2, RAY_raylet_start_wait_time_s="170") as ray,
        opened_house(f"sqlite:///{home / 'attune.db'}", home, ray) as found,
    ):
        yield found


def address(house: House, path: str = "") -> str:
    return f"http://127.0.0.1:{house.port}{path}"


def status(page: Page) -> Locator:
    return page.locator(".title .status")


def confirm(page: Page, button: str, yes: str) -> None:
    page.get_by_role("group", name="Control this search").get_by_role("button", name=button).click()
    page.get_by_role("dialog").get_by_role("button", name=yes).click()


def identifier(page: Page) -> str:
    found = re.search(r"/searches/([0-9a-f-]{36})", page.url)
    assert found is not None
    return found[1]


def test_a_search_from_its_request_to_its_deletion(house: House, context: BrowserContext, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(address(house))
    page.get_by_role("link", name="New search", exact=True).first.click()
    page.wait_for_selector("body[data-checked]", timeout=LONG)
    page.locator("#text").fill(yaml.safe_dump(DIGITS))
    expect(page.get_by_label("Name")).to_have_value(NAME)
    page.get_by_role("button", name="Start this search").click(timeout=LONG)
    expect(page.get_by_role("heading", name=NAME)).to_be_visible(timeout=LONG)
    page.wait_for_selector("body[data-ready]")
    page.evaluate("window.sameDocument = true")
    other = opened(context, page.url)
    search = identifier(page)

    for tab in (page, other):
        expect(tab.locator("table.all tbody tr").first).to_be_visible(timeout=LONG)
    confirm(page, "Pause", "Pause")
    for tab in (page, other):
        expect(status(tab)).to_have_text("paused", timeout=LONG)
    page.get_by_role("button", name="Resume").click()
    expect(status(other)).to_have_text("running", timeout=LONG)

    house.end("api")
    expect(page.locator("#connection")).to_be_visible(timeout=LONG)
    house.start_api()
    expect(page.locator("#connection")).to_be_hidden(timeout=LONG)
    for tab in (page, other):
        expect(status(tab)).to_have_text("succeeded", timeout=LONG)
        trials = list(house.client.trials(search))
        expect(tab.locator("table.all tbody tr")).to_have_count(len(trials))
        for trial in trials:
            row = tab.locator(f'table.all tr[data-trial="{trial["id"]}"]')
            expect(row).to_contain_text(f"{100 * trial['top1']:.2f} %")
        expect(tab.locator("#events")).to_contain_text("The search is succeeded")
    front = [point["trial_id"] for point in house.client.front(search)["points"]]
    rows = page.locator("table.front tbody:first-of-type tr")
    expect(rows).to_have_count(len(front))
    assert [row.get_attribute("data-trial") for row in rows.all()] == front
    assert page.evaluate("window.sameDocument")
    other.close()

    keep_everything(page, tmp_path, house, search)
    look_around(page, house, search)

    page.goto(address(house, f"/searches/{search}"))
    page.wait_for_selector("body[data-ready]")
    page.evaluate("window.sameDocument = true")
    before = len(list(house.client.trials(search)))
    page.get_by_role("button", name="Extend").click()
    page.get_by_role("dialog").get_by_label("Trials").fill("8")
    page.get_by_role("dialog").get_by_role("button", name="Extend").click()
    expect(page.locator("table.all tbody tr")).to_have_count(before + 2, timeout=LONG)
    expect(status(page)).to_have_text("succeeded", timeout=LONG)
    assert page.evaluate("window.sameDocument")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(NAME)
    dialog.get_by_role("button", name="Go back").click()
    expect(dialog).to_be_hidden()
    confirm(page, "Delete", "Delete")
    expect(page.get_by_role("heading", name="Searches")).to_be_visible()
    expect(page.get_by_role("link", name=NAME)).to_have_count(0)


def keep_everything(page: Page, folder: Path, house: House, search: str) -> None:
    """Every plot as SVG and PNG, and the trials as files."""
    page.locator("[data-published]").check()
    page.wait_for_function("document.getElementById('front-plot').data.some(t => t.name === 'published' && t.x.length)")
    kept = set()
    for button in page.locator("[data-save]:visible").all():
        with page.expect_download() as download:
            button.click()
        file = folder / download.value.suggested_filename
        download.value.save_as(file)
        starts = {"svg": b"<svg", "png": b"\x89PNG"}[button.get_attribute("data-save") or ""]
        assert file.read_bytes().startswith(starts)
        kept.add(button.get_attribute("data-target"))
    assert kept >= {"front-plot", "heat", "paths", "volume", "curves"}
    numbers = sorted(trial["number"] for trial in house.client.trials(search))
    for name in ("CSV", "Parquet"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        download.value.save_as(folder / name)
    with (folder / "CSV").open() as file:
        assert sorted(int(row["number"]) for row in csv.DictReader(file)) == numbers
    assert sorted(pq.read_table(folder / "Parquet").column("number").to_pylist()) == numbers


def look_around(page: Page, house: House, search: str) -> None:
    """The pages that lead on from a search."""
    page.get_by_role("link", name="Report").click()
    page.wait_for_selector("body[data-ready]")
    expect(page.get_by_role("button", name="Print or save as PDF")).to_be_visible()
    expect(page.locator("table.worth").first).to_be_visible()
    page.get_by_role("link", name="Back to the search").click()
    page.get_by_role("link", name="Clone").click()
    page.wait_for_selector("body[data-checked]", timeout=LONG)
    assert yaml.safe_load(page.locator("#text").input_value())["name"] == NAME
    page.goto(address(house, f"/searches/{search}"))
    page.locator("table.all tbody th a").last.click()
    page.wait_for_selector("body[data-ready]", timeout=LONG)
    expect(page.get_by_role("heading", name="Trial 1", exact=True)).to_be_visible()
    expect(page.locator("#curves .scatterlayer .trace")).not_to_have_count(0)
    page.goto(address(house, "/cluster"))
    expect(page.locator("article.node")).to_have_count(1)
    expect(page.locator("article.node")).to_contain_text("2 CPUs")


def test_failed_trials_are_retried_and_searches_cancelled_and_compared(house: House, context: BrowserContext) -> None:
    search = house.client.submit(TROUBLED)["id"]
    page = opened(context, address(house, f"/searches/{search}"))
    expect(status(page)).to_have_text("succeeded", timeout=LONG)
    failed = [trial for trial in house.client.trials(search) if trial["status"] == "failed"]
    assert len(failed) == 1
    trial = opened(context, address(house, f"/trials/{failed[0]['id']}"))
    expect(trial.locator("#error")).to_contain_text("a bug in a module")
    expect(trial.locator("#error")).to_contain_text("Traceback")
    confirm(page, "Retry failed", "Retry")
    expect(page.get_by_role("button", name="Retry failed")).to_have_count(0)
    expect(status(page)).to_have_text("succeeded", timeout=LONG)
    row = page.locator(f'table.all tr[data-trial="{failed[0]["id"]}"]')
    expect(row).to_contain_text("succeeded", timeout=LONG)

    slow = {**TROUBLED, "name": "slow", "dataset": {"name": "troubles", "seconds": 5.0, "marker": 4712}}
    running = opened(context, address(house, f"/searches/{house.client.submit(slow)['id']}"))
    expect(status(running)).to_have_text("running", timeout=LONG)
    confirm(running, "Cancel", "Cancel the search")
    expect(status(running)).to_have_text("cancelled", timeout=LONG)

    page.goto(address(house))
    for name in ("fails once", "slow"):
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("link", name="Compare 2 searches").click()
    page.wait_for_selector("body[data-ready]")
    expect(page.locator("table.compared tbody").first.locator("tr")).to_have_count(2)
    for kind in ("svg", "png"):
        with page.expect_download() as download:
            page.locator(f'[data-save="{kind}"]').click()
        assert download.value.suggested_filename.endswith(kind)

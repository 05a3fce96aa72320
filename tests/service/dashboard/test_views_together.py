"""The views of a search in Chromium: linked with each other, with the address and with what happens meanwhile."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from db import events
from db.engine import make_engine, writing
from service.settings import ServiceSettings
from tests.service.dashboard.browsing import WAIT, opened
from tests.service.filling import Template
from tests.service.many import fill_many
from tests.service.support import served


def test_a_choice_stands_in_every_view_and_in_the_address(
    context: BrowserContext, address: str, rows: Template
) -> None:
    page = opened(context, f"{address}/searches/{rows.finished.id}")
    page.locator('table.all [data-choose="4"]').check()
    expect(page.locator("#chosen")).to_contain_text("1 trial chosen")
    expect(page.locator('#paths path[data-number="4"]')).to_have_class(re.compile("chosen"))
    page.wait_for_function("document.getElementById('curves').data?.some(line => line.name === 'trial 4')")
    page.wait_for_function("document.getElementById('front-plot').data.at(-1).x.length === 1")
    page.locator('[data-segmented="heat"] [data-value="gain"]').click()
    page.locator("[data-axis=x]").select_option("params")
    page.locator("#trials").get_by_role("button", name="Top-1").click()
    expect(page.locator("#trials th[aria-sort=descending]")).to_contain_text("Top-1")
    page.wait_for_function("location.search.includes('sort=-top1')")
    again = opened(context, page.url)
    expect(again.locator('table.all [data-choose="4"]')).to_be_checked()
    expect(again.locator("[data-axis=x]")).to_have_value("params")
    expect(again.locator('[data-segmented="heat"] [data-value="gain"]')).to_have_attribute("aria-pressed", "true")
    expect(again.locator("#trials th[aria-sort=descending]")).to_contain_text("Top-1")
    assert again.evaluate("document.getElementById('front-plot').layout.xaxis.title.text").startswith("Parameters")
    again.get_by_role("button", name="Clear").click()
    again.wait_for_function("!location.search.includes('sel=')")


def test_filters_and_columns_change_the_table_in_place(context: BrowserContext, address: str, rows: Template) -> None:
    page = opened(context, f"{address}/searches/{rows.finished.id}")
    page.locator('[data-filter="role"]').select_option("control")
    expect(page.locator("table.all tbody tr")).to_have_count(2)
    page.locator("#trials summary").click()
    page.get_by_role("checkbox", name="Top-5").check()
    expect(page.locator("table.all thead")).to_contain_text("Top-5")
    assert page.get_by_role("link", name="CSV").get_attribute("href") == (
        f"/searches/{rows.finished.id}/trials.csv?role=control"
    )


@pytest.mark.parametrize("target", ["front-plot", "heat", "paths", "volume", "curves"])
def test_every_plot_can_be_kept(
    context: BrowserContext, address: str, rows: Template, target: str, tmp_path: Path
) -> None:
    page = opened(context, f"{address}/searches/{rows.finished.id}")
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as download:
            page.locator(f'[data-save="{kind}"][data-target="{target}"]').click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        assert file.suffix == f".{kind}"
        content = file.read_bytes()
        assert content.startswith(start)
        assert len(content) > 1500


def test_two_tabs_see_the_same_news(context: BrowserContext, address: str, rows: Template) -> None:
    tabs = [opened(context, f"{address}/searches/{rows.running.id}") for _ in range(2)]
    space = rows.running.plan.space
    trial = rows.running.trial(space.architecture(tuple(size - 1 for size in space.sizes)), status="running")
    for tab in tabs:
        expect(tab.locator(f'table.all tr[data-trial="{trial}"]')).to_contain_text("running", timeout=WAIT)
    rows.running.end("cancelled")
    for tab in tabs:
        expect(tab.locator(".title .status")).to_have_text("cancelled", timeout=WAIT)
        expect(tab.locator("#events")).to_contain_text("The search is cancelled", timeout=WAIT)


def test_news_of_a_kind_that_no_page_knows_are_told_too(context: BrowserContext, address: str, rows: Template) -> None:
    page = opened(context, f"{address}/searches/{rows.running.id}")
    with writing(rows.running.engine) as session:
        events.append(session, rows.running.id, "weather.changed", {"message": "It rains on the cluster."})
    expect(page.locator("#events")).to_contain_text("It rains on the cluster.", timeout=WAIT)


def test_a_trial_is_followed_while_it_trains(context: BrowserContext, address: str, rows: Template) -> None:
    space = rows.running.plan.space
    architecture = space.architecture(tuple(size - 1 for size in space.sizes))
    trial = rows.running.trial(architecture, status="running")
    assert trial is not None
    page = opened(context, f"{address}/trials/{trial}")
    page.evaluate("window.sameDocument = true")
    expect(page.locator(".title .status")).to_have_text("running")
    rows.running.finish_running(trial, 0.9876, rows.running.table.architecture(architecture).macs)
    expect(page.locator(".title .status")).to_have_text("succeeded", timeout=WAIT)
    expect(page.locator(".facts")).to_contain_text("98.76 %")
    assert page.evaluate("window.sameDocument")


def test_times_are_those_of_the_reader(browser: Browser, address: str, rows: Template) -> None:
    context = browser.new_context(timezone_id="Asia/Tokyo", locale="en-GB")
    page = context.new_page()
    page.goto(f"{address}/searches/{rows.finished.id}/report")
    shown = page.locator("time[data-moment]").first
    expect(shown).to_contain_text("GMT+9", timeout=WAIT)
    there = datetime.fromisoformat(shown.get_attribute("datetime") or "").astimezone(ZoneInfo("Asia/Tokyo"))
    expect(shown).to_contain_text(f"{there:%H:%M:%S}")
    context.close()


def test_a_restart_of_the_service_is_survived_and_nothing_missed(context: BrowserContext, rows: Template) -> None:
    with served(ServiceSettings(database_url=rows.url, event_poll_seconds=0.02)) as address:
        page = opened(context, f"{address}/searches/{rows.running.id}")
        port = int(address.rsplit(":", 1)[1])
    expect(page.locator("#connection")).to_be_visible(timeout=WAIT)
    space = rows.running.plan.space
    trial = rows.running.trial(space.architecture(tuple(size - 1 for size in space.sizes)), status="running")
    with served(ServiceSettings(database_url=rows.url, event_poll_seconds=0.02), port=port):
        expect(page.locator(f'table.all tr[data-trial="{trial}"]')).to_contain_text("running", timeout=WAIT)
        expect(page.locator("#connection")).to_be_hidden(timeout=WAIT)
        page.goto("about:blank")


def test_a_finished_search_is_extended_and_deleted(context: BrowserContext, address: str, rows: Template) -> None:
    page = opened(context, f"{address}/searches/{rows.finished.id}")
    page.get_by_role("button", name="Extend").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Trials").fill("40")
    dialog.get_by_role("button", name="Extend").click()
    expect(page.locator(".title .status")).to_have_text("queued", timeout=WAIT)
    expect(page.locator(".fact-trials")).to_contain_text("of 43")
    page.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel the search").click()
    expect(page.locator(".title .status")).to_have_text("cancelled", timeout=WAIT)
    page.get_by_role("button", name="Delete").click()
    expect(dialog).to_contain_text("where does attention pay")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Searches")).to_be_visible(timeout=WAIT)
    expect(page.get_by_role("link", name="where does attention pay")).to_have_count(0)


def test_form_and_text_follow_each_other_until_the_search_starts(
    context: BrowserContext, address: str, rows: Template
) -> None:
    page = context.new_page()
    page.goto(f"{address}/new")
    page.wait_for_selector("body[data-checked]", timeout=60_000)
    expect(page.get_by_label("CBAM", exact=True)).to_be_checked()
    page.get_by_label("BAM", exact=True).check()
    expect(page.locator("#text")).to_have_value(re.compile(r"modules: \[none, se, cbam, bam\]"))
    expect(page.locator("#preview")).to_contain_text("BAM", timeout=60_000)
    text = page.locator("#text").input_value()
    page.locator("#text").fill(text.replace("[none, se,", "[none, sse,"))
    expect(page.locator("#problems")).to_contain_text("space.modules.1")
    expect(page.get_by_role("button", name="Start this search")).to_be_disabled()
    page.locator("#text").fill(text.replace(text.splitlines()[0], "name: written by hand"))
    expect(page.get_by_label("Name")).to_have_value("written by hand")
    page.get_by_role("button", name="Start this search").click()
    expect(page.get_by_role("heading", name="written by hand")).to_be_visible(timeout=WAIT)


@pytest.mark.slow
def test_a_search_of_100_000_trials_is_usable(context: BrowserContext, tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "many.db"
    path.write_bytes(sqlite_template.read_bytes())
    engine = make_engine(f"sqlite:///{path}")
    search = fill_many(engine, 100_000)
    engine.dispose()
    with served(ServiceSettings(database_url=f"sqlite:///{path}")) as address:
        opened(context, f"{address}/searches/{search}")  # once, to read the trials into the service
        began = time.monotonic()
        page = context.new_page()
        page.goto(f"{address}/searches/{search}")
        page.wait_for_selector("#front-plot[data-drawn]")
        seconds = time.monotonic() - began
        answer = page.request.get(f"{address}/api/v1/searches/{search}/front")
        assert len(answer.body()) <= 100_000
        assert json.loads(answer.text())["dominated"]["grid"]["cells"]
        expect(page.locator("table.all tbody tr")).to_have_count(50)
        assert seconds < 10, f"{seconds:.1f} s"  # 2 s on idle cores
        page.goto("about:blank")

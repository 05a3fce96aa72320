"""The pages in Chromium: no error in the console, live without a reload, the same front as the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from service.cli.main import app
from tests.service.filling import Template

expect.set_options(timeout=20_000)  # the tests share two cores with others


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page, closed before the server is; any message in its console of warning or worse fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    found = context.new_page()
    troubles: list[str] = []
    found.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: troubles.append(str(error)))
    found.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    found.set_default_timeout(20_000)
    yield found
    context.close()
    assert troubles == []


def drawn(page: Page) -> None:
    page.wait_for_selector("#front-plot[data-drawn]")


def test_every_page_without_an_error(page: Page, address: str, rows: Template) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", name="Searches")).to_be_visible()
    expect(page.get_by_role("link", name="<script>alert(1)</script>")).to_be_visible()
    page.get_by_role("link", name="where does attention pay").click()
    drawn(page)
    expect(page.get_by_role("heading", name="where does attention pay")).to_be_visible()


def test_the_front_is_that_of_the_command_line(page: Page, address: str, rows: Template) -> None:
    answer = CliRunner().invoke(app, ["front", rows.finished.id, "--json"], env={"ATTUNE_URL": address})
    front: dict[str, Any] = json.loads(answer.stdout)
    page.goto(f"{address}/searches/{rows.finished.id}")
    drawn(page)
    listed = page.locator("table.front tbody:first-of-type tr")
    assert [row.get_attribute("data-trial") for row in listed.all()] == [p["trial_id"] for p in front["points"]]
    shown = [row.locator("td.num").first.inner_text() for row in listed.all()]
    assert shown == [f"{100 * p['values']['top1']:.2f} %" for p in front["points"]]
    plotted = page.evaluate("document.getElementById('front-plot').data.map(t => [t.name, t.customdata ?? []])")
    numbers = {
        number
        for name, trials in plotted
        if name in ("on the front", "baseline", "control: published placement")
        for number in trials
    }
    assert {p["number"] for p in front["points"]} <= numbers


def test_a_running_search_is_live_without_a_reload(page: Page, address: str, rows: Template) -> None:
    page.goto(f"{address}/searches/{rows.running.id}")
    drawn(page)
    page.evaluate("window.sameDocument = true")
    before = page.locator("table.all tbody tr").count()
    space = rows.running.plan.space
    architecture = space.architecture(tuple(size - 1 for size in space.sizes))
    trial = rows.running.trial(architecture, status="running")
    assert trial is not None
    expect(page.locator("table.all tbody tr")).to_have_count(before + 1)
    expect(page.locator(f'table.all tr[data-trial="{trial}"]')).to_contain_text("running")
    rows.running.finish_running(trial, 0.9876, rows.running.table.architecture(architecture).macs)
    expect(page.locator(f'table.front tr[data-trial="{trial}"]')).to_contain_text("98.76 %")
    expect(page.locator(".headline")).to_contain_text("+")
    number = page.locator(f'table.front tr[data-trial="{trial}"]').get_attribute("data-number")
    page.wait_for_function(
        "number => document.getElementById('front-plot').data.some(t => t.name === 'on the front' && "
        "t.customdata.includes(number))",
        arg=int(number or 0),
    )
    rows.running.end()
    expect(page.locator(".title .status")).to_have_text("succeeded")
    assert page.evaluate("window.sameDocument")


def test_a_point_and_its_rows_light_up_together(page: Page, address: str, rows: Template) -> None:
    page.goto(f"{address}/searches/{rows.finished.id}")
    drawn(page)
    trial = page.locator("table.front tbody tr").last.get_attribute("data-trial")
    page.locator(f'table.all tr[data-trial="{trial}"]').hover()
    expect(page.locator("tr.lit")).to_have_count(2)
    expect(page.locator(f'table.front tr[data-trial="{trial}"]')).to_have_class(re.compile("lit"))
    expect(page.locator("#front-plot .points path.lit")).not_to_have_count(0)


def test_pause_and_cancel_from_the_page(page: Page, address: str, rows: Template) -> None:
    page.goto(f"{address}/searches/{rows.queued.id}")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.locator(".title .status")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".title .status")).to_have_text("queued")


def test_the_list_follows_what_happens(page: Page, address: str, rows: Template) -> None:
    page.goto(address)
    expect(page.locator(f'tr[data-key="{rows.running.id}"]')).to_contain_text("running")
    rows.running.end("failed", {"kind": "x", "message": "y"})
    expect(page.locator(f'tr[data-key="{rows.running.id}"]')).to_contain_text("failed")


@pytest.mark.parametrize("path", ["/", "/searches/{id}", "/compare?search={id}", "/cluster", "/new"])
def test_a_phone_needs_no_sideways_scrolling(browser: Browser, address: str, rows: Template, path: str) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 740}, color_scheme="dark")
    page = context.new_page()
    page.goto(address + path.format(id=rows.finished.id))
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    context.close()


def test_strips_have_names_in_words(page: Page, address: str, rows: Template) -> None:
    page.goto(f"{address}/searches/{rows.finished.id}")
    drawn(page)
    words = page.locator("table.front tbody th").all_inner_texts()
    assert any(re.match(r"all stages: (SE|CBAM) in every block, r\s=\s\d+", text) for text in words)
    assert any(text.startswith("no attention") for text in words)

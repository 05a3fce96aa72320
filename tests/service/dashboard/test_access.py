"""For everybody: axe-core finds no serious violation, in light and dark, at 1280 px and on a phone; keys suffice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.service.filling import Template

PAGES = (
    "/", "/searches/{id}", "/searches/{id}/report", "/trials/{trial}", "/compare?search={id}&search={other}",
    "/cluster", "/new",
)  # fmt: skip
SERIOUS = {"serious", "critical"}


def address_of(rows: Template, path: str) -> str:
    assert rows.finished.best is not None
    return path.format(id=rows.finished.id, other=rows.running.id, trial=rows.finished.best[1])


@pytest.fixture(params=[("light", 1280), ("dark", 375)], ids=["light-1280", "dark-phone"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    scheme, width = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True
    )
    found = context.new_page()
    found.set_default_timeout(40_000)
    yield found
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_no_serious_violation(page: Page, address: str, rows: Template, path: str) -> None:
    page.goto(address + address_of(rows, path))
    page.wait_for_load_state("networkidle")
    if path == "/new":
        page.wait_for_selector("body[data-checked]")
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    told = [
        (each["id"], each["help"], [node["html"][:160] for node in each["nodes"][:4]])
        for each in found
        if each["impact"] in SERIOUS
    ]
    assert told == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("window.innerWidth")


def test_a_search_is_cancelled_with_keys_alone(browser: Browser, address: str, rows: Template) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{address}/searches/{rows.queued.id}")
    page.wait_for_selector("body[data-ready]")
    page.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(".title .status")).to_have_text("queued")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Cancel the search").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".title .status")).to_have_text("cancelled", timeout=20_000)
    context.close()

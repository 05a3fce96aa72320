"""A browser's pages, as the tests of the dashboard open them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Page

WAIT = 30_000
"""Milliseconds: the tests share two cores with others."""


@contextmanager
def watched(browser: Browser) -> Iterator[BrowserContext]:
    """Any warning or error in the console of any of its pages fails the test, but for a service that is away."""
    found = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce", accept_downloads=True)
    troubles: list[str] = []

    def listen(page: Page) -> None:
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    found.on("page", listen)
    yield found
    found.close()
    assert [text for text in troubles if "net::ERR_" not in text] == []


def opened(context: BrowserContext, address: str) -> Page:
    """A page of a search, a trial or a comparison, once it has drawn everything."""
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    return page

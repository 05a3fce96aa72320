"""The pages over a database that holds realistic searches, for a test client and for a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from service.settings import ServiceSettings
from tests.service.dashboard.browsing import watched
from tests.service.filling import Template
from tests.service.support import opened, served

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Template:
    path = tmp_path_factory.mktemp("filled") / "attune.db"
    shutil.copy(sqlite_template, path)
    return Template.make(path)


@pytest.fixture
def rows(filled: Template, tmp_path: Path) -> Iterator[Template]:
    found = filled.copied(tmp_path / "rows.db")
    yield found
    found.close()


@pytest.fixture
def site(rows: Template) -> Iterator[TestClient]:
    with opened(rows.url, publish=False) as client:
        yield client


@pytest.fixture
def address(rows: Template) -> Iterator[str]:
    with served(ServiceSettings(database_url=rows.url, event_poll_seconds=0.02)) as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        message = f"no browser at {CHROMIUM}: the pages are not tested (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with watched(browser) as found:
        yield found

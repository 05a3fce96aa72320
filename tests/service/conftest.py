"""The service over a database of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.service.support import opened


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "HOST", "PORT", "DATABASE_URL", "ALLOWED_HOSTS", "MAX_GPUS", "PLUGINS"):
        monkeypatch.delenv(f"ATTUNE_{name}", raising=False)


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite database, for tests that are about HTTP and not about databases."""
    path = tmp_path / "service.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def client(sqlite_url: str) -> Iterator[TestClient]:
    """On SQLite, with the data set `digits`."""
    with opened(sqlite_url) as found:
        yield found


@pytest.fixture
def any_client(database_url: str) -> Iterator[TestClient]:
    """The same, once on each database."""
    with opened(database_url) as found:
        yield found

"""A whole house per database: API and dispatcher as processes of their own, on one Ray for the whole run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import migrated
from tests.e2e.house import ROOT as ROOT
from tests.e2e.house import House as House
from tests.e2e.house import Ray, opened_house, opened_ray
from tests.e2e.house import free_port as free_port
from tests.e2e.house import until as until


@pytest.fixture(scope="session")
def ray_node() -> Iterator[Ray]:
    """A Ray of two slots, shared by the whole run."""
    with opened_ray(2) as ray:
        yield ray


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """As everywhere, but on PostgreSQL with the slow tests: a house takes ten seconds to open."""
    yield from migrated(request, tmp_path)


@pytest.fixture
def house(database_url: str, tmp_path: Path, ray_node: Ray) -> Iterator[House]:
    """The service over this test's database, once on SQLite and once on PostgreSQL."""
    home = tmp_path / "home"
    home.mkdir()
    with opened_house(database_url, home, ray_node) as opened:
        yield opened


@pytest.fixture
def sqlite_house(tmp_path: Path, sqlite_template: Path, ray_node: Ray) -> Iterator[House]:
    """The service over SQLite, for tests that are about something else than the database."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(sqlite_template, home / "attune.db")
    with opened_house(f"sqlite:///{home / 'attune.db'}", home, ray_node) as opened:
        yield opened

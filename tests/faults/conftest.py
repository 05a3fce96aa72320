"""Houses that faults happen to: one per database for the whole run, mended after each fault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BACKENDS
from tests.e2e.house import House, Ray, opened_ray
from tests.faults import invariants
from tests.faults.postgres import Postgres, opened_postgres


@pytest.fixture(scope="session")
def ray_node() -> Iterator[Ray]:
    """A Ray of two slots, shared by the whole run."""
    with opened_ray(2) as ray:
        yield ray


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped."""
    with opened_postgres() as server:
        yield server


class Street:
    """Opens a house, mends it between faults, and gives up one that a fault has ruined."""

    def __init__(self, backend: str, request: pytest.FixtureRequest) -> None:
        self._backend = backend
        self._request = request
        self._home: Path = request.getfixturevalue("tmp_path_factory").mktemp(f"house-{backend}")
        self._count = 0
        self.house: House | None = None

    def whole(self) -> House:
        """A house in which everything runs."""
        if self.house is None:
            self._count += 1
            home = self._home / str(self._count)
            home.mkdir()
            self.house = House(self._url(home), home, self._request.getfixturevalue("ray_node"))
        for name, start in (("api", self.house.start_api), ("dispatcher", self.house.start_dispatcher)):
            process = self.house.processes.get(name)
            if process is None or process.poll() is not None:
                start(name)
        for name in set(self.house.processes) - {"api", "dispatcher"}:  # what the last fault has added
            self.house.end(name)
        return self.house

    def give_up(self) -> None:
        house, self.house = self.house, None
        if house is not None:
            house.stop()

    def _url(self, home: Path) -> str:
        if self._backend == "postgresql":
            postgres: Postgres = self._request.getfixturevalue("postgres")
            return postgres.database()
        shutil.copy(self._request.getfixturevalue("sqlite_template"), home / "attune.db")
        return f"sqlite:///{home / 'attune.db'}"


@pytest.fixture(scope="session", params=BACKENDS)
def street(request: pytest.FixtureRequest) -> Iterator[Street]:
    street = Street(request.param, request)
    yield street
    street.give_up()


@pytest.fixture(scope="session")
def sqlite_street(request: pytest.FixtureRequest) -> Iterator[Street]:
    street = Street("sqlite", request)
    yield street
    street.give_up()


@pytest.fixture
def house(street: Street) -> Iterator[House]:
    """A whole house on each database; after the fault the invariants must hold."""
    yield from _checked(street)


@pytest.fixture
def sqlite_house(sqlite_street: Street) -> Iterator[House]:
    """The same for faults that do not reach the database."""
    yield from _checked(sqlite_street)


def _checked(street: Street) -> Iterator[House]:
    house = street.whole()
    before = invariants.committed(house.engine)
    yield house
    try:
        invariants.check(house, before)
    except BaseException:
        street.give_up()
        raise


@pytest.fixture
def office(database_url: str, tmp_path: Path) -> Iterator[House]:
    """Only the API, on each database: what happens to requests needs no Ray. Nothing is started yet."""
    house = House(database_url, tmp_path)
    yield house
    house.stop()

"""Houses that faults happen to: one per database for the whole run, mended after each fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import BACKENDS
from tests.e2e.house import SEVERAL_HOSTS, House, Ray, opened_ray
from tests.faults import invariants
from tests.faults.postgres import Postgres, opened_postgres


@pytest.fixture(scope="session")
def ray_node() -> Iterator[Ray]:
    """A Ray of two slots, shared by the whole run."""
    with opened_ray(2, **SEVERAL_HOSTS) as ray:
        yield ray


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped."""
    with opened_postgres() as server:
        yield server


class Street:
    """Opens a house, mends it between faults, and gives up one that a fault has ruined."""

    def __init__(self, folder: Path, ray: Ray, database: Callable[[Path], str]) -> None:
        self._folder = folder
        self._ray = ray
        self._database = database
        self._count = 0
        self.house: House | None = None

    def whole(self) -> House:
        """A house in which everything runs."""
        if self.house is None:
            self._count += 1
            home = self._folder / str(self._count)
            home.mkdir()
            # the janitor is to come round before the next fault, as it removes what killed processes have left
            self.house = House(self._database(home), home, self._ray, {"ATTUNE_JANITOR_SECONDS": "5"})
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


@pytest.fixture(scope="session")
def streets(
    tmp_path_factory: pytest.TempPathFactory, ray_node: Ray, postgres: Postgres, sqlite_template: Path
) -> Iterator[dict[str, Street]]:
    """By database. No house is opened before a test asks for it."""

    def copied(home: Path) -> str:
        shutil.copy(sqlite_template, home / "attune.db")
        return f"sqlite:///{home / 'attune.db'}"

    found = {
        "sqlite": Street(tmp_path_factory.mktemp("sqlite"), ray_node, copied),
        "postgresql": Street(tmp_path_factory.mktemp("postgresql"), ray_node, lambda home: postgres.database()),
    }
    yield found
    for street in found.values():
        street.give_up()


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Of the whole session, so that all faults on one database come together."""
    return str(request.param)


@pytest.fixture
def house(backend: str, streets: dict[str, Street]) -> Iterator[House]:
    """A whole house on each database; after the fault the invariants must hold."""
    yield from _checked(streets[backend])


@pytest.fixture
def postgresql_house(streets: dict[str, Street]) -> Iterator[House]:
    """The same for what only a server can suffer."""
    yield from _checked(streets["postgresql"])


@pytest.fixture
def sqlite_house(streets: dict[str, Street]) -> Iterator[House]:
    """The same for faults that do not reach the database."""
    yield from _checked(streets["sqlite"])


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
    try:
        queued = {row["id"]: "queued" for row in invariants.rows(house.engine, "SELECT id FROM searches")}
        assert invariants.database_violations(house.engine, promised=queued) == []
        assert invariants.partial_files(tmp_path) == []
    finally:
        house.stop()

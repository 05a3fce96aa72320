"""The database away or held while a whole service is at work: nobody loses a result, and nobody does a thing twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.house import House, Ray
from tests.faults import invariants
from tests.faults.postgres import Postgres
from tests.faults.searches import (
    LEASE,
    PATIENCE,
    attempt,
    check_results,
    locked,
    trained,
    troubled,
    wait_for_training,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 3


def work_through(house: House, ray: Ray, outage: Callable[[float], None], lengths: Sequence[float]) -> None:
    """Two searches, and one more submitted during each outage of so many seconds: all of them must come to their ends
    as if nothing had happened."""
    specs = [troubled(epochs=EPOCHS, seconds=0.5) for _ in range(2)]
    found = [house.client.submit(spec)["id"] for spec in specs]
    wait_for_training(house, specs[0])
    for seconds in lengths:
        before = invariants.committed(house.engine)
        specs.append(troubled(epochs=1, trials=1))
        with ThreadPoolExecutor(1) as pool:
            posted = pool.submit(house.client.submit, specs[-1])
            outage(seconds)
            found.append(posted.result(PATIENCE)["id"])
        assert invariants.lost(house.engine, before) == []
    for search_id, spec in zip(found, specs, strict=True):
        ended = house.finished(search_id, PATIENCE)
        assert ended["status"] == "succeeded", ended["error"]
        assert ended["counts"]["succeeded"] == min(8, spec["budget"]["trials"] + 1)
        assert set(trained(ray, spec).values()) == {1}, "no epoch was trained twice"
        check_results(house, search_id, spec["training"]["epochs"])
        assert attempt(house, search_id) == 1, "the driver that had the search has kept it"
    names = [search["name"] for search in house.client.searches()]
    assert all(names.count(spec["name"]) == 1 for spec in specs)


def test_a_server_restarted_under_load_costs_nothing(
    postgresql_house: House, ray_node: Ray, postgres: Postgres
) -> None:
    work_through(postgresql_house, ray_node, postgres.restart, (0.0, 1.0, LEASE + 2))


def test_a_file_that_another_program_holds_costs_nothing(sqlite_house: House, ray_node: Ray) -> None:
    """As a backup does, or somebody's shell."""

    def hold(seconds: float) -> None:
        with locked(sqlite_house.database_url):
            time.sleep(seconds)

    work_through(sqlite_house, ray_node, hold, (1.0, LEASE + 4))

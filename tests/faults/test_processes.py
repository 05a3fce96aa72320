"""Dispatchers and drivers killed or stopped: searches go on, and nothing finished is lost or repeated."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.house import House, Ray, until
from tests.faults import invariants
from tests.faults.invariants import rows
from tests.faults.searches import (
    LEASE,
    PATIENCE,
    attempt,
    check_results,
    dispatcher_of,
    held_up,
    suspend,
    trained,
    troubled,
    wait_for_training,
    wait_until_gone,
    wait_until_held_up,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 3


def only_unfinished_repeated(ray: Ray, spec: dict[str, Any], finished_keys: set[str], live: int) -> None:
    """What had finished was trained once; of what was live, an epoch at most was trained twice per trial and end."""
    times = trained(ray, spec)
    assert all(count == 1 for (key, _), count in times.items() if key in finished_keys)
    assert sum(count - 1 for count in times.values()) <= live, times


def finished_keys(house: House, search_id: str) -> set[str]:
    return {trial["key"] for trial in house.client.trials(search_id, status="succeeded")}


def test_a_killed_driver_takes_its_trials_along_and_the_next_repeats_only_the_unfinished(
    house: House, ray_node: Ray
) -> None:
    spec = held_up(EPOCHS, 0.7)
    search_id = house.client.submit(spec)["id"]
    wait_until_held_up(house, search_id, spec, 2)
    driver, training = house.driver(search_id), ray_node.trial_processes()
    assert training
    driver.kill()
    wait_until_gone(training, 5)
    before, done = invariants.committed(house.engine), finished_keys(house, search_id)
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["counts"]["succeeded"] == 8
    assert attempt(house, search_id) == 2
    only_unfinished_repeated(ray_node, spec, done, live=2)
    check_results(house, search_id, EPOCHS)
    assert invariants.database_violations(house.engine, before) == []


def test_a_killed_dispatcher_leaves_its_driver_at_work_and_the_next_one_adopts_it(house: House, ray_node: Ray) -> None:
    spec = troubled(epochs=EPOCHS, seconds=0.5)
    search_id = house.client.submit(spec)["id"]
    wait_for_training(house, spec)
    driver = house.driver(search_id)
    house.kill("dispatcher")
    house.start_dispatcher()
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    assert attempt(house, search_id) == 1
    assert set(trained(ray_node, spec).values()) == {1}
    wait_until_gone([driver], 30)


def test_a_lost_machine_with_dispatcher_and_driver_is_replaced_within_the_lease_and_five_seconds(
    house: House, ray_node: Ray
) -> None:
    house.start_dispatcher("second-dispatcher", ATTUNE_SPARE_DRIVERS="0")
    spec = held_up(EPOCHS, 0.7)
    search_id = house.client.submit(spec)["id"]
    wait_until_held_up(house, search_id, spec, 2)
    driver = house.driver(search_id)
    house.kill(dispatcher_of(house, driver))
    driver.kill()
    killed = time.monotonic()
    before, done = invariants.committed(house.engine), finished_keys(house, search_id)
    until(lambda: attempt(house, search_id) == 2, 60, every=0.05)
    assert time.monotonic() - killed <= LEASE + 5
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["counts"]["succeeded"] == 8
    only_unfinished_repeated(ray_node, spec, done, live=2)
    check_results(house, search_id, EPOCHS)
    assert invariants.database_violations(house.engine, before) == []


def test_a_zombie_that_wakes_after_its_lease_writes_nothing(house: House, ray_node: Ray) -> None:
    """Dispatcher and driver stand still past the lease, as on a machine that was suspended."""
    house.start_dispatcher("second-dispatcher", ATTUNE_SPARE_DRIVERS="0")
    spec = held_up(EPOCHS, 0.7)
    search_id = house.client.submit(spec)["id"]
    wait_until_held_up(house, search_id, spec, 1)
    driver = house.driver(search_id)
    zombies = [driver, house.process(dispatcher_of(house, driver))]
    suspend(house, zombies)
    until(lambda: attempt(house, search_id) == 2, 60)
    before, done = invariants.committed(house.engine), finished_keys(house, search_id)
    for process in zombies:
        process.resume()
    wait_until_gone(zombies[:1], 60)
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["counts"]["succeeded"] == 8
    assert attempt(house, search_id) == 2, "the zombie has not taken it back"
    only_unfinished_repeated(ray_node, spec, done, live=2)
    check_results(house, search_id, EPOCHS)
    assert invariants.database_violations(house.engine, before) == []


def test_a_dispatcher_that_stood_still_goes_on_beside_its_driver(house: House, ray_node: Ray) -> None:
    spec = troubled(epochs=EPOCHS, seconds=0.5)
    search_id = house.client.submit(spec)["id"]
    wait_for_training(house, spec)
    dispatcher = house.process("dispatcher")
    dispatcher.suspend()
    time.sleep(LEASE + 1)  # nothing to wait for: the point is that nothing happens
    dispatcher.resume()
    assert house.finished(search_id, PATIENCE)["status"] == "succeeded"
    assert attempt(house, search_id) == 1
    assert set(trained(ray_node, spec).values()) == {1}


def test_two_dispatchers_run_each_search_once(house: House, ray_node: Ray) -> None:
    house.start_dispatcher("second-dispatcher")
    specs = [troubled(trials=2, epochs=2, seconds=0.2) for _ in range(5)]
    found = [house.client.submit(spec)["id"] for spec in specs]
    for search_id in found:
        assert house.finished(search_id, 300)["status"] == "succeeded"
    attempts = {row["id"]: row["attempt"] for row in rows(house.engine, "SELECT id, attempt FROM searches")}
    assert [attempts[search_id] for search_id in found] == [1] * len(found)
    for spec in specs:
        times = trained(ray_node, spec)
        assert set(times.values()) == {1}
        assert len(times) == 2 * 3, "a baseline and two placements, two epochs each"

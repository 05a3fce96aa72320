"""Wall clocks that jump, by an hour and by a day, forward and back, under dispatchers and drivers at work.

Leases follow the database's clock, and time-outs the monotonic one: nothing is taken over, given up or trained twice.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.house import House, Ray, until
from tests.faults.searches import (
    CLOCK,
    DAY,
    HOUR,
    LEASE,
    PATIENCE,
    attempt,
    check_results,
    dispatcher_of,
    held_up,
    trained,
    troubled,
    wait_for_results,
    wait_until_held_up,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start_shifted(house: House, name: str, clock: Path, **settings: str) -> None:
    """A dispatcher, and so its drivers, whose clock is as many seconds off as the file says."""
    clock.write_text("0")
    path = f"{CLOCK}:{house.environment['PYTHONPATH']}"
    house.start_dispatcher(name, PYTHONPATH=path, FAULTS_CLOCK=str(clock), **settings)


def test_jumps_of_a_clock_cost_a_running_search_nothing(house: House, ray_node: Ray, tmp_path: Path) -> None:
    house.end("dispatcher")
    clock = tmp_path / "clock"
    start_shifted(house, "dispatcher", clock)
    try:
        spec = troubled(epochs=2, seconds=0.5)
        search_id = house.client.submit(spec)["id"]
        for done, shift in enumerate((HOUR, -HOUR, DAY, -DAY), start=1):
            wait_for_results(house, [search_id], done)
            clock.write_text(str(shift))
        ended = house.finished(search_id, PATIENCE)
        assert ended["status"] == "succeeded", ended["error"]
        assert (ended["counts"]["succeeded"], attempt(house, search_id)) == (8, 1)
        assert set(trained(ray_node, spec).values()) == {1}
        for trial in house.client.trials(search_id):
            assert 0 <= trial["seconds"] < HOUR
        check_results(house, search_id, 2)
    finally:
        house.end("dispatcher")


def test_dispatchers_whose_clocks_are_two_days_apart_take_over_when_the_lease_is_over_and_not_before(
    house: House, ray_node: Ray, tmp_path: Path
) -> None:
    house.end("dispatcher")
    clocks = {name: tmp_path / name for name in ("ahead", "behind")}
    try:
        for name, clock in clocks.items():
            start_shifted(house, name, clock, ATTUNE_SPARE_DRIVERS="0")
        clocks["ahead"].write_text(str(DAY))
        clocks["behind"].write_text(str(-DAY))
        spec = held_up(3, 0.3)
        search_id = house.client.submit(spec)["id"]
        wait_until_held_up(house, search_id, spec, 2)
        driver = house.driver(search_id)
        time.sleep(LEASE + 1)  # nothing to wait for: the point is that nothing happens
        assert attempt(house, search_id) == 1
        assert driver.is_running()
        assert driver.status() != psutil.STATUS_ZOMBIE
        house.kill(dispatcher_of(house, driver))
        driver.kill()
        killed = time.monotonic()
        until(lambda: attempt(house, search_id) == 2, 60, every=0.05)
        assert time.monotonic() - killed <= LEASE + 5
        ended = house.finished(search_id, PATIENCE)
        assert ended["status"] == "succeeded", ended["error"]
        assert ended["counts"]["succeeded"] == 8
        check_results(house, search_id, 3)
    finally:
        for name in set(clocks) & set(house.processes):
            house.end(name)

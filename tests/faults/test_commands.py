"""Cancel, pause and stop while trials train."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from tests.e2e.house import House, Ray, until
from tests.faults import invariants
from tests.faults.searches import (
    PATIENCE,
    attempt,
    check_results,
    marker_of,
    trained,
    troubled,
    wait_for_results,
    wait_for_training,
    wait_until_gone,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Begun:
    """A search of eight trials of five epochs, in the middle of which something happens."""

    house: House
    ray: Ray
    spec: dict[str, Any] = field(default_factory=lambda: troubled(epochs=5, seconds=1.0))
    search_id: str = ""

    def __post_init__(self) -> None:
        self.search_id = self.house.client.submit(self.spec)["id"]
        wait_for_training(self.house, self.spec, 2, PATIENCE)

    def processes(self, *events: str) -> set[int]:
        """Ids of the processes that have written one of these to the journal, or anything."""
        lines = self.ray.journal(marker_of(self.spec))
        return {line["pid"] for line in lines if not events or line["event"] in events}

    def check_end(self, before: invariants.Committed) -> None:
        """Every trial comes to its end, and no epoch was trained twice. before: what was committed at the fault."""
        ended = self.house.finished(self.search_id, PATIENCE)
        assert ended["status"] == "succeeded", ended["error"]
        assert ended["counts"]["succeeded"] == 8
        assert set(trained(self.ray, self.spec).values()) == {1}
        check_results(self.house, self.search_id, 5)
        assert invariants.database_violations(self.house.engine, before) == []


def test_cancel_during_a_long_epoch_ends_the_trials_within_five_seconds_and_keeps_the_results(
    house: House, ray_node: Ray
) -> None:
    """The baseline takes no time, the next trials an hour: nothing ends by itself."""
    spec = troubled(trouble="hang", sites=1)
    search_id = house.client.submit(spec)["id"]
    hung = until(lambda: [line for line in ray_node.journal(marker_of(spec)) if line["event"] == "trouble"], PATIENCE)
    wait_for_results(house, [search_id], 1)
    before = invariants.committed(house.engine)
    training = [psutil.Process(line["pid"]) for line in hung]
    house.client.cancel(search_id)
    wait_until_gone(training, 5)
    until(lambda: house.client.search(search_id)["status"] == "cancelled", 10)
    statuses = {trial["status"] for trial in house.client.trials(search_id)}
    assert "running" not in statuses
    assert {"cancelled", "succeeded"} <= statuses
    assert invariants.database_violations(house.engine, before) == []


def test_a_paused_search_frees_its_slots_and_goes_on_in_other_processes_without_an_epoch_twice(
    house: House, ray_node: Ray
) -> None:
    begun = Begun(house, ray_node)
    house.client.pause(begun.search_id)
    until(lambda: house.client.search(begun.search_id)["status"] == "paused", PATIENCE)
    assert "running" not in {trial["status"] for trial in house.client.trials(begun.search_id)}
    until(lambda: not ray_node.trial_processes(), 30)
    before = invariants.committed(house.engine)
    first = begun.processes()
    house.client.resume(begun.search_id)
    begun.check_end(before)
    resumed = begun.processes("load")
    assert resumed
    assert not first & resumed


def test_a_stopped_dispatcher_hands_its_search_back_within_thirty_seconds_and_no_epoch_is_trained_twice(
    house: House, ray_node: Ray
) -> None:
    begun = Begun(house, ray_node)
    driver = house.driver(begun.search_id)
    asked = time.monotonic()
    house.end("dispatcher")
    assert time.monotonic() - asked <= 30
    assert not driver.is_running()
    assert house.client.search(begun.search_id)["status"] == "queued"
    before = invariants.committed(house.engine)
    house.start_dispatcher()
    begun.check_end(before)
    assert attempt(house, begun.search_id) == 2

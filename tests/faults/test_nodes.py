"""A node of the cluster lost with everything on it: its trials go on elsewhere, from their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.house import House, Ray, until
from tests.faults.searches import (
    PATIENCE,
    attempt,
    check_results,
    marker_of,
    notes,
    trained,
    troubled,
    wait_for_training,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 6


@pytest.fixture
def second_node(ray_node: Ray) -> Iterator[str]:
    """The name of a second node with two slots, which the test may kill."""
    name = "second"
    ray_node.add_node(name, 2, host="127.0.0.2")
    yield name
    if name in ray_node.nodes:
        ray_node.kill_node(name)


def slots(house: House) -> float:
    return sum(node["cpus"] for node in house.client.cluster()["nodes"])


def test_the_trials_of_a_lost_node_go_on_from_their_checkpoints_on_another(
    house: House, ray_node: Ray, second_node: str
) -> None:
    until(lambda: slots(house) == 4, 60)
    spec = troubled(epochs=EPOCHS, seconds=1.0, concurrent=4, trials=8)
    search_id = house.client.submit(spec)["id"]

    def lines_of_lost_node() -> list[dict[str, int]]:
        """What trials on the second node have begun after an epoch, whose checkpoint is in the store by then."""
        there = {process.pid for process in psutil.Process(ray_node.nodes[second_node].pid).children(recursive=True)}
        begun = [line for line in ray_node.journal(marker_of(spec)) if line["event"] == "begin" and line["epoch"] >= 2]
        return [line for line in begun if line["pid"] in there]

    wait_for_training(house, spec, 1)
    until(lines_of_lost_node, PATIENCE, every=0.02)
    ray_node.kill_node(second_node)
    until(lambda: slots(house) == 2, 60)
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    assert (ended["counts"]["succeeded"], attempt(house, search_id)) == (8, 1)
    lost = [trial for trial in house.client.trials(search_id) if trial["retries"]]
    assert 1 <= len(lost) <= 2
    assert all(trial["retried"] == {"killed": 1} for trial in lost)
    assert any(note["epoch"] >= 2 for note in notes(house, search_id, "trial.resumed"))
    times = trained(ray_node, spec)
    repeated = {key for (key, _), count in times.items() if count > 1}
    assert repeated <= {trial["key"] for trial in lost}
    assert sum(count - 1 for count in times.values()) <= len(lost), "at most the epoch that was not saved yet"
    check_results(house, search_id, EPOCHS)

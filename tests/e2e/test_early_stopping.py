"""Early stopping with real training on a real Ray: trials end early, and their processes take the next ones."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import House

SPEC = {
    "name": "stop what does badly",
    "dataset": {"name": "digits"},
    "backbone": {"name": "resnet8", "width": 4},
    "space": {"modules": ["none", "se", "cbam"], "reduction": [2, 4], "pattern": ["every"]},
    "training": {"epochs": 4},
    "strategy": {"name": "random", "early_stopping": {"name": "halving", "eta": 3}},
    "budget": {"trials": 12},
}
RUNGS = {1, 3}


@pytest.mark.slow
def test_trials_that_do_badly_end_early_and_their_processes_go_on(sqlite_house: House) -> None:
    house = sqlite_house
    assert house.ray is not None
    client = house.client
    search_id = client.submit(SPEC)["id"]
    before = {process.pid for process in house.ray.trial_processes()}
    seen: set[int] = set()
    deadline = time.monotonic() + 240
    while client.search(search_id)["status"] in ("queued", "running"):
        assert time.monotonic() < deadline, house.log("dispatcher")
        seen |= {process.pid for process in house.ray.trial_processes()} - before
        time.sleep(0.3)
    search = client.search(search_id)
    assert search["status"] == "succeeded", search["error"]
    trials = list(client.trials(search_id))
    explored = [trial for trial in trials if trial["role"] == "explore"]
    stopped = [trial for trial in explored if trial["status"] == "stopped"]
    assert len(explored) == 12
    assert stopped
    assert search["counts"]["stopped"] == len(stopped)
    assert {trial["status"] for trial in trials if trial not in stopped} == {"succeeded"}
    for trial in trials:
        epochs = client._json("GET", f"/api/v1/trials/{trial['id']}/epochs")["items"]
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, trial["epochs"] + 1))
        if trial not in stopped:
            assert trial["epochs"] == 4
            continue
        assert trial["epochs"] in RUNGS
        assert trial["top1"] == epochs[-1]["top1"]
        assert trial["error"]["message"].startswith(f"Stopped after epoch {trial['epochs']} of 4: non-dominated rank ")
    front = {point["trial_id"] for point in client.front(search_id)["points"]}
    assert not front & {trial["id"] for trial in stopped}
    # fifteen trials on two slots: a process for each would be fifteen; a few wait in reserve
    assert len(seen) <= 6, seen

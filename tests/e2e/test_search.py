"""A search from REST to its front, with real training on real Ray, on both databases."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.request
from collections import Counter

import pytest

from tests.e2e.conftest import House, Ray, until

DIGITS = {
    "name": "'; DROP TABLE searches <script>alert(1)</script> 🔎",
    "dataset": {"name": "digits"},
    "backbone": {"name": "resnet8", "width": 4},
    "space": {"modules": ["none", "se"], "reduction": [2, 4], "pattern": ["every"]},
    "training": {"epochs": 2},
    "budget": {"trials": 4},
}
TROUBLED = {
    "dataset": {"name": "troubles"},
    "backbone": {"name": "resnet8", "width": 8},
    "space": {"modules": ["none", "se"], "reduction": [2], "pattern": ["last"]},
    "training": {"epochs": 1},
    "resources": {"concurrent": 1},  # one trial process is enough here, and each has to import torch
    "controls": False,
}


def front_of(trials: list[dict]) -> set[str]:
    """Ids of the trials that no other beats: brute force over pairs."""
    good = [t for t in trials if t["status"] in ("succeeded", "reused")]

    def beaten(one: dict) -> bool:
        return any(
            o["top1"] >= one["top1"]
            and o["macs"] <= one["macs"]
            and (o["top1"], o["macs"]) != (one["top1"], one["macs"])
            for o in good
        )

    return {t["id"] for t in good if not beaten(t)}


def test_a_search_ends_with_the_front_of_what_it_measured_and_a_second_one_reuses_it(house: House) -> None:
    client = house.client
    search = client.submit(DIGITS)
    ended = house.finished(search["id"])
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["name"] == DIGITS["name"]
    trials = list(client.trials(search["id"]))
    assert trials[0]["role"] == "baseline"
    assert [t["role"] for t in trials].count("explore") == 4
    assert all(0.0 < t["top1"] <= 1.0 and t["macs"] > 0 for t in trials)
    detail = client._json("GET", f"/api/v1/trials/{trials[0]['id']}")
    assert {"torch", "python", "device"} <= set(detail["environment"])
    command = [sys.executable, "-m", "workers.rerun", trials[0]["id"]]
    rerun = json.loads(subprocess.run(command, env=house.environment, check=True, capture_output=True).stdout)
    assert rerun["now"] == rerun["then"] == {name: trials[0][name] for name in ("top1", "top5", "loss")}
    assert rerun["environment_differs"] == {}
    front = client.front(search["id"])
    assert {point["trial_id"] for point in front["points"]} == front_of(trials)
    assert 0 < front["hypervolume"] < 1
    epochs = client._json("GET", f"/api/v1/trials/{trials[0]['id']}/epochs")["items"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert epochs[-1]["top1"] == trials[0]["top1"]

    kinds = [event.kind for event in client.events(search["id"])]
    assert kinds[0] == "search.created"
    assert kinds.count("trial.finished") == len(trials)

    again = client.submit(DIGITS)
    second = house.finished(again["id"])
    assert second["status"] == "succeeded"
    assert second["counts"] == {**second["counts"], "reused": len(trials)}
    assert [t["top1"] for t in client.trials(again["id"])] == [t["top1"] for t in trials]


@pytest.mark.slow
def test_trials_that_go_wrong_say_why_and_the_search_goes_on(sqlite_house: House) -> None:
    client = sqlite_house.client
    search_id = client.submit({**TROUBLED, "name": "mixed", "dataset": {"name": "troubles", "trouble": "mixed"}})["id"]
    gone_id = client.submit({**TROUBLED, "name": "gone", "dataset": {"name": "troubles", "trouble": "gone"}})["id"]
    assert sqlite_house.finished(search_id)["status"] == "succeeded"
    trials = list(client.trials(search_id))
    failed = {t["error"]["kind"]: t for t in trials if t["status"] == "failed"}
    assert len(trials) == 2**3
    assert set(failed) == {"nan_loss", "error", "out_of_memory"}
    assert all(t["top1"] is None and t["error"]["message"] for t in failed.values())
    assert "a bug in a module" in failed["error"]["error"]["message"]
    assert [t["status"] for t in trials].count("succeeded") == 5
    gone = sqlite_house.finished(gone_id)
    assert gone["status"] == "failed"
    assert "train/ is gone" in gone["error"]["message"]
    assert gone["counts"] == {**gone["counts"], "failed": 1}
    trials += client.trials(gone_id)
    until(lambda: counted(sqlite_house) == told_of(trials), 30)


def counted(house: House) -> dict[str, float]:
    """What the service's metrics say of trials."""
    with urllib.request.urlopen(f"http://127.0.0.1:{house.port}/metrics", timeout=10) as answer:
        found = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line.startswith("attune_trial")]
    wanted = ("attune_trials{", "attune_trial_failures_total", "attune_trial_seconds_count")
    return {name: float(value) for name, value in found if name.startswith(wanted) and float(value)}


def told_of(trials: list[dict]) -> dict[str, float]:
    """The same, counted from the trials themselves."""
    told = Counter(f'attune_trials{{status="{trial["status"]}"}}' for trial in trials)
    told.update(
        f'attune_trial_failures_total{{kind="{t["error"]["kind"]}"}}' for t in trials if t["status"] == "failed"
    )
    told["attune_trial_seconds_count"] = sum(trial["status"] == "succeeded" for trial in trials)
    return dict(told)


@pytest.mark.slow
def test_a_trial_whose_process_dies_is_started_again_up_to_the_limit(sqlite_house: House) -> None:
    client = sqlite_house.client
    searches = {}
    for name, times in (("crash", 0), ("crash_once", 1)):
        dataset = {"name": "troubles", "trouble": "crash", "sites": 3, "times": times, "marker": 1000 + times}
        searches[name] = client.submit({**TROUBLED, "name": name, "dataset": dataset})["id"]
    ended = {trouble: sqlite_house.finished(search_id, 240) for trouble, search_id in searches.items()}
    assert {search["status"] for search in ended.values()} == {"succeeded"}
    crashed = [t for t in client.trials(searches["crash"]) if t["status"] == "failed"]
    assert [(t["error"]["kind"], t["retries"]) for t in crashed] == [("killed", 2)]
    assert {t["status"] for t in client.trials(searches["crash_once"])} == {"succeeded"}
    assert [t["retries"] for t in client.trials(searches["crash_once"])].count(1) == 1


def test_nothing_of_a_search_stays_in_rays_own_folder(sqlite_house: House, ray_node: Ray) -> None:
    spec = {**TROUBLED, "name": "folders", "dataset": {"name": "troubles", "seconds": 0.3}, "training": {"epochs": 2}}
    search_id = sqlite_house.client.submit(spec)["id"]
    session = ray_node.folder / "session_latest"

    until(lambda: sqlite_house.client.search(search_id)["counts"].get("succeeded", 0) >= 2, 120)
    (of_trials,) = session.glob(f"artifacts/*/{search_id}/working_dirs")  # where Tune makes one for each
    assert sqlite_house.client.search(search_id)["status"] == "running"
    until(lambda: not list(of_trials.iterdir()), 10)
    assert sqlite_house.finished(search_id)["status"] == "succeeded"
    assert list(session.glob(f"**/*{search_id}*")) == []
    assert list(session.glob("artifacts/*")) == []


def test_a_running_search_is_cancelled_within_seconds_and_keeps_its_results(sqlite_house: House) -> None:
    client = sqlite_house.client
    spec = {**TROUBLED, "name": "long", "dataset": {"name": "troubles", "seconds": 0.2}, "training": {"epochs": 40}}
    search_id = client.submit(spec)["id"]
    until(lambda: any(t["epochs"] > 2 for t in client.trials(search_id)), 60)
    client.cancel(search_id)
    ended = sqlite_house.finished(search_id, 10)
    assert ended["status"] == "cancelled"
    statuses = [t["status"] for t in client.trials(search_id)]
    assert "running" not in statuses
    assert "cancelled" in statuses


@pytest.mark.slow
def test_a_paused_search_goes_on_where_it_stopped(sqlite_house: House) -> None:
    client = sqlite_house.client
    spec = {**TROUBLED, "name": "pause", "dataset": {"name": "troubles", "seconds": 0.5}}
    search_id = client.submit(spec)["id"]
    until(lambda: client.search(search_id)["counts"].get("succeeded", 0) >= 2, 60)
    client.pause(search_id)
    until(lambda: client.search(search_id)["status"] == "paused", 15)
    before = {t["id"]: t["finished_at"] for t in client.trials(search_id) if t["status"] == "succeeded"}
    client.resume(search_id)
    ended = sqlite_house.finished(search_id)
    after = {t["id"]: t["finished_at"] for t in client.trials(search_id) if t["status"] == "succeeded"}
    assert ended["status"] == "succeeded"
    assert len(after) == 2**3
    assert before.items() <= after.items()
    keys = [t["key"] for t in client.trials(search_id)]
    assert all(a != b for a, b in itertools.combinations(keys, 2))


def test_trials_of_two_workers_give_results_that_others_reuse(house: House) -> None:
    shared = {
        **DIGITS, "name": "two", "controls": False, "budget": {"trials": 1}, "strategy": {"seed": 77},
        "training": {"epochs": 3}, "resources": {"workers": 2, "cpus": 2},
    }  # fmt: skip
    search = house.client.submit(shared)
    ended = house.finished(search["id"])
    assert ended["status"] == "succeeded", ended["error"]
    trials = list(house.client.trials(search["id"]))
    assert len(trials) == 2  # one after the other in the same processes
    for trial in trials:
        detail = house.client._json("GET", f"/api/v1/trials/{trial['id']}")
        assert detail["environment"]["workers"] == 2
        assert detail["retries"] == 0
    again = house.client.submit({**shared, "resources": {}})
    assert house.finished(again["id"])["status"] == "succeeded"
    assert {trial["status"] for trial in house.client.trials(again["id"])} == {"reused"}

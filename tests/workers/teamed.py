"""A Ray of two CPUs and a trial of two workers on it: `python -m tests.workers.teamed FOLDER`, which holds order.json.

It trains a trial to its end, then another one in the same processes of which one is killed in the second epoch, then
that one again in fresh processes. Prints what they have told, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

os.umask(0o077)

import ray  # noqa: E402
from ray.exceptions import RayActorError, RayTaskError  # noqa: E402
from ray.util.placement_group import remove_placement_group  # noqa: E402
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # noqa: E402

from workers.failures import failure_of_process  # noqa: E402
from workers.nodes import placed_by  # noqa: E402
from workers.trial import TrialActor  # noqa: E402


class Place:
    """An actor placed as Tune places it."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.group = placed_by(2.0, 0.0, workers=2)({})()
        ray.get(self.group.ready(), timeout=60)
        strategy = PlacementGroupSchedulingStrategy(self.group, 0, placement_group_capture_child_tasks=True)
        actor: Any = ray.remote(TrialActor).options(num_cpus=1, scheduling_strategy=strategy)
        self.actor = actor.remote(config={"order": order})

    def step(self) -> dict[str, Any]:
        told: dict[str, Any] = ray.get(self.actor.train.remote(), timeout=200)
        return told

    def until_done(self) -> list[dict[str, Any]]:
        found = [self.step()]
        while not found[-1]["done"]:
            found.append(self.step())
        return found

    def leave(self) -> None:
        ray.kill(self.actor)
        remove_placement_group(self.group)


def members() -> list[int]:
    """Process ids of the ranks above 0."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if line.startswith(b"ray::Member"):
            found.append(int(folder.name))
    return found


def kept(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("epoch", "notes", "result", "failure", "done") if name in told}


def main(folder: Path) -> None:
    order = json.loads((folder / "order.json").read_text())
    other = {**order, "trial_id": "second", "store": {**order["store"], "prefix": order["store"]["prefix"] + "-2"}}
    before = set(members())
    place = Place(order)
    whole = place.until_done()
    processes = set(members()) - before
    assert ray.get(place.actor.reset.remote({"order": other}), timeout=60)
    first = place.step()
    again = set(members()) - before
    killed: Any = None
    answer = place.actor.train.remote()
    os.kill(next(iter(again)), signal.SIGKILL)
    try:
        ray.get(answer, timeout=100)
    except (RayTaskError, RayActorError) as error:
        killed = failure_of_process(error)
    place.leave()
    fresh = Place(other)
    rest = fresh.until_done()
    fresh.leave()
    print(json.dumps({
        "whole": list(map(kept, whole)), "first": kept(first), "killed": killed, "rest": list(map(kept, rest)),
        "same_processes": processes == again and len(again) == 1,
    }))  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
                 _temp_dir=temporary + "/ray", _node_ip_address="127.0.0.1")  # fmt: skip
        main(Path(sys.argv[1]))
        ray.shutdown()

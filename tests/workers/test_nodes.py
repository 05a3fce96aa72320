"""Trials are kept from nodes that see another store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workers.nodes import Avoided, placed_by, to_avoid

ROOT = Path(__file__).parents[2]
PLACED = """
import json, os, tempfile
os.umask(0o077)
os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=2).node_id for _ in range(3)]
import ray
from ray import tune
from tests.workers.short import Short
from workers.nodes import placed_by

told = {}


class Where(Short):
    def step(self):
        return super().step() | {"node": ray.get_runtime_context().get_node_id()}


with tempfile.TemporaryDirectory() as folder:
    for name, avoid in (("one", nodes[:1]), ("two", nodes[:2])):
        found = tune.Tuner(
            tune.with_resources(Where, placed_by(1.0, 0.0)),
            param_space={"number": tune.grid_search(list(range(4))), "avoid": avoid},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, name=name, verbose=0,
                                      checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)),
        ).fit()
        told[name] = [result.metrics["node"] for result in found]
ray.shutdown()
cluster.shutdown()
print("TOLD" + json.dumps({"nodes": nodes, **told}))
"""


def node(name: str, problem: str | None = None, cpus: float = 2.0) -> dict[str, Any]:
    return {"id": name, "cpus": cpus, "gpus": 0.0, "storage_problem": problem}


def test_nodes_with_another_store_are_avoided_while_there_are_others() -> None:
    assert to_avoid([]) == []
    assert to_avoid([node("a"), node("b")]) == []
    assert to_avoid([node("c", "another"), node("a"), node("b", "being looked at")]) == ["b", "c"]
    # with nothing else left a trial fails there and says why; the head offers nothing
    assert to_avoid([node("a", "another"), node("head", cpus=0.0)]) == []


def test_what_is_published_is_not_read_for_every_trial() -> None:
    reads = []

    def read() -> list[dict[str, Any]]:
        reads.append(1)
        return [node("a"), node("b", "another")]

    avoided = Avoided(read)
    assert avoided.now() == avoided.now() == ["b"]
    assert len(reads) == 1


def test_trials_that_avoid_the_same_nodes_may_share_processes() -> None:
    place = placed_by(1.0, 0.25)
    assert place({"avoid": []}) == place({}) != place({"avoid": ["a"]})
    assert place({"avoid": ["a", "b"]}) == place({"avoid": ["a", "b"]})
    assert place({"avoid": ["a"]}).required_resources == {"CPU": 1.0, "GPU": 0.25}


@pytest.mark.slow
def test_ray_places_no_trial_on_a_node_that_is_avoided() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ATTUNE_"))}
    done = subprocess.run(
        [sys.executable, "-c", PLACED], env=environment | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.partition("TOLD")[2])
    first, _, third = told["nodes"]
    assert len(told["one"]) == len(told["two"]) == 4
    assert first not in told["one"]
    assert set(told["two"]) == {third}

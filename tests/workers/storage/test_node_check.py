"""Nodes of a real Ray are asked what store they see; nobody waits for their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = """
import json, sys, time
from ray.cluster_utils import Cluster
from workers.ray_cluster import RayCluster
from workers.settings import WorkerSettings
from workers.storage.identity import StoreIdentity, write_marker
from workers.storage.node_check import NodeCheck
from workers.storage.store import open_store

cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
joined = cluster.add_node(num_cpus=1)
cluster.add_node(num_cpus=0)
import ray
here = ray.get_runtime_context().get_node_id()
nodes = RayCluster(WorkerSettings()).nodes()


def answer(check):
    first = check.marked(nodes)
    began = time.monotonic()
    while time.monotonic() - began < 240:
        now = check.marked(nodes)
        if [n.get("storage_problem") for n in now] != [n.get("storage_problem") for n in first]:
            break
        time.sleep(0.1)
    return {name: {n["id"]: n.get("storage_problem") for n in docs} for name, docs in (("first", first), ("then", now))}


told = {"here": here, "joined": joined.node_id}
# a store in memory is another one in each process, as a folder that is not shared is on each machine
for name, url in (("own", "memory://store"), ("shared", sys.argv[1])):
    write_marker(open_store(url), "the-store")
    told[name] = answer(NodeCheck(StoreIdentity(url, "the-store"), here))
ray.shutdown()
cluster.shutdown()
print("TOLD" + json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_sees_another_store_says_so_and_one_that_sees_the_same_does_not(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "RAY_"))}
    ours = {"PYTHONPATH": str(ROOT), "ATTUNE_HOME": str(tmp_path), "RAY_worker_niceness": "0"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "store")], check=False, env=kept | ours, capture_output=True,
        text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    told = json.loads(done.stdout.partition("TOLD")[2])
    joined = told["joined"]
    for name in ("own", "shared"):
        first = told[name]["first"]
        # its slots do not count before it has answered; nodes without slots and this machine's are not asked
        assert first.pop(joined) == "Whether it sees the store is being looked at."
        assert len(first) == 2
        assert set(first.values()) == {None}
    assert told["shared"]["then"][joined] is None
    problem = told["own"]["then"][joined]
    assert "sees another store at memory://store" in problem
    assert "ATTUNE_STORAGE" in problem

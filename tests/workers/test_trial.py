"""Trial processes on a real Ray as the dispatcher starts it: what they see, what they survive, what replaces them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from workers.storage.hangs import take_hang
from workers.storage.identity import write_marker
from workers.storage.store import open_store

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)
SECRETS = {
    "ATTUNE_DATABASE_URL": "postgresql://user:canary@host/name",
    "ATTUNE_TOKEN": "canary",
    "ATTUNE_OTHER_SECRET": "canary",
    "PGPASSWORD": "canary",
}
RUN = """
import json, os, shutil, sys, tempfile, threading

os.umask(0o077)
import tests.workers.unruly as unruly
from workers.ray_cluster import RayCluster
from workers.settings import WorkerSettings

cluster = RayCluster(WorkerSettings())
assert cluster.connect(threading.Event())
os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
from ray import tune
from ray.tune import Callback
from workers.deaths import error_of, take_memory_for_deaths
from workers.failures import failure_of_process
from workers.reuse import keep_starting_actors
from workers.trial import TrialActor

keep_starting_actors()
take_memory_for_deaths()
whats, url, timeouts = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
told = []


class Told(Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        told.append({"what": result["order_id"], "pid": result["pid"], "failure": result.get("failure")})

    def on_trial_error(self, iteration, trials, trial, **info):
        failure = failure_of_process(error_of(trial))
        told.append({"what": trial.config["order"]["trial_id"], "pid": None, "failure": failure})


folder = tempfile.mkdtemp()
orders = [
    unruly.order_of(what, url, timeout=timeout) | {"trial_id": f"{number}:{what}"}
    for number, (what, timeout) in enumerate(zip(whats, timeouts, strict=True))
]
tune.Tuner(
    tune.with_resources(TrialActor, {"cpu": 1, "gpu": 0}),
    param_space={"order": tune.grid_search(orders)},
    tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
    run_config=tune.RunConfig(
        storage_path=folder, callbacks=[Told()], failure_config=tune.FailureConfig(max_failures=0), verbose=0
    ),
).fit()
shutil.rmtree(folder)
cluster.close()
print("TOLD" + json.dumps(told))
"""


def run(
    whats: list[str], home: Path, *, timeouts: list[float] | None = None, environment: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """What Tune's driver hears of trials that run one after the other."""
    store = open_store(str(home / "storage"))
    write_marker(store, "unruly")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "RAY_"))}
    ours = {
        "ATTUNE_HOME": str(home), "ATTUNE_PLUGINS": "tests.workers.unruly", "ATTUNE_SLOTS": "2",
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0",
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(whats), store.url, json.dumps(timeouts or [500.0] * len(whats))],
            check=False, env=kept | ours | (environment or {}), capture_output=True, text=True, timeout=540,
        )  # fmt: skip
    finally:
        end_what_is_left(home)
    assert done.returncode == 0, done.stderr[-5000:]
    told: list[dict[str, Any]] = json.loads(done.stdout.partition("TOLD")[2])
    assert [one["what"] for one in told] == [f"{number}:{what}" for number, what in enumerate(whats)]
    return told


def end_what_is_left(home: Path) -> None:
    """Ends processes of this home's Ray that outlive a driver which had to be killed."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"ATTUNE_HOME={home}\0".encode() in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_ends_with_what_it_cannot_survive_and_goes_on_otherwise(tmp_path: Path) -> None:
    whats = ["look", "raise", "fine", "memory", "fine"]
    told = run(whats, tmp_path, environment=SECRETS)
    kinds = [one["failure"] and one["failure"]["kind"] for one in told]
    assert kinds == [None, "error", None, "out_of_memory", None]
    assert "a bug in a module" in told[1]["failure"]["message"]
    assert "Tried to allocate 20.00 GiB" in told[3]["failure"]["message"]
    assert "in run_epoch" in told[3]["failure"]["traceback"]
    # the reuse of processes is what makes short trials cheap
    assert told[0]["pid"] == told[1]["pid"] == told[2]["pid"] != told[4]["pid"]

    seen = json.loads((tmp_path / "seen.json").read_text())
    everything = json.dumps(seen)
    assert "canary" not in everything
    assert not {name for name in seen["now"] if "DATABASE" in name or name == "ATTUNE_TOKEN"}
    assert seen["now"]["ATTUNE_PLUGINS"] == "tests.workers.unruly"


@pytest.mark.slow
def test_a_hung_trial_leaves_its_traces_and_the_next_one_runs(tmp_path: Path) -> None:
    told = run(["hang", "fine"], tmp_path, timeouts=[30.0, 500.0])
    assert told[0]["failure"]["kind"] == "killed"
    assert told[1]["failure"] is None
    traces = take_hang(open_store(str(tmp_path / "storage")), "searches/one/hang")
    assert traces is not None
    assert "in run_epoch" in traces


@pytest.mark.slow
def test_a_process_that_ray_kills_for_its_nodes_memory_was_out_of_memory(tmp_path: Path) -> None:
    import psutil

    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + 2.5e9) / memory.total
    if limit > 0.95:
        pytest.skip("this machine has no 2.5 GB of memory to spare")
    settings = {"RAY_memory_usage_threshold": f"{limit:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    told = run(["eat"], tmp_path, environment=settings)
    assert told[0]["failure"]["kind"] == "out_of_memory"

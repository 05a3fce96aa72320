"""What becomes of a search whose trial's process Ray has killed for its node's memory, on a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from workers.deaths import failure_of_death
from workers.storage.layout import HANG
from workers.storage.store import open_store

TUNE = """
import json, os, sys, tempfile, time
import ray
from ray import tune
from workers.deaths import error_of, failure_of_death, take_memory_for_deaths
from workers.storage.store import open_store

take_memory_for_deaths()
folder = tempfile.mkdtemp()
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1",
         _temp_dir=sys.argv[1])
failures = []

class Taken(tune.Callback):
    def on_trial_error(self, iteration, trials, trial, **info):
        found = failure_of_death(error_of(trial), open_store(folder), "searches/a/b", overdue=False, seconds=1.0)
        failures.append({"kind": found.kind, "message": found.message})

def trial(config):
    time.sleep(120)

tune.Tuner(trial, run_config=tune.RunConfig(storage_path=folder, callbacks=[Taken()])).fit()
print("FAILURES", json.dumps(failures))
"""


@pytest.mark.slow
def test_a_process_killed_for_its_nodes_memory_fails_one_trial_and_not_the_search() -> None:
    little = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "250"}
    environment = os.environ | little | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="attune-ray-") as folder:  # a socket's path must be short
        command = [sys.executable, "-c", TUNE, folder]
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    told = next(line for line in done.stdout.splitlines() if line.startswith("FAILURES "))
    failures = json.loads(told.removeprefix("FAILURES "))
    assert [failure["kind"] for failure in failures] == ["out_of_memory"]
    assert "memory" in failures[0]["message"]


def test_traces_of_a_hang_are_the_reason_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write(f"searches/a/b/{HANG}", b'Thread 1:\n  File "loader.py", line 7 in read\n')
    error = RayActorError(error_msg="The actor died unexpectedly.")
    first = failure_of_death(error, store, "searches/a/b", overdue=False, seconds=30.0)
    assert (first.kind, "30 s" in first.message, "loader.py" in first.traceback) == ("timeout", True, True)
    second = failure_of_death(error, store, "searches/a/b", overdue=False, seconds=30.0)
    assert (second.kind, second.message) == ("killed", "The trial's process died.")


def test_a_process_that_could_not_leave_traces_hung_all_the_same(tmp_path: Path) -> None:
    error = RayActorError(error_msg="The actor is dead because it was killed by `ray.kill`.")
    found = failure_of_death(error, open_store(str(tmp_path)), "searches/a/b", overdue=True, seconds=30.0)
    assert found.kind == "timeout"
    assert "no trace" in found.message

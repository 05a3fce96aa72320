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
from workers.failures import failure_of
from workers.storage.last_words import leave_last_words
from workers.storage.layout import HANG, LAST_WORDS
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


def test_the_last_words_of_a_process_are_the_reason_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    error = RayActorError(error_msg="The actor died unexpectedly.")
    leave_last_words(store, "searches/a/b", failure_of(MemoryError("9 GB")))
    found = [failure_of_death(error, store, "searches/a/b", overdue=False, seconds=30.0) for _ in range(2)]
    assert [(each.kind, each.message) for each in found] == [
        ("out_of_memory", "9 GB"), ("killed", "The trial's process died.")
    ]  # fmt: skip
    store.write(f"searches/a/b/{LAST_WORDS}", b"{")
    damaged = failure_of_death(error, store, "searches/a/b", overdue=False, seconds=30.0)
    assert damaged.kind == "killed"


STUCK = """
import os, sys, tempfile, time
os.umask(0o077)
import ray, torch
from ray.exceptions import RayActorError
from workers.deaths import failure_of_death
from workers.failures import failure_of
from workers.storage.last_words import leave_last_words
from workers.storage.store import open_store
from workers.team import Watch

def fails():
    raise torch.OutOfMemoryError("CUDA out of memory.")

class First:
    def train(self, folder):
        answer = ray.remote(fails).options(num_cpus=1, max_retries=0).remote()
        Watch([answer], lambda error: leave_last_words(open_store(folder), "searches/a/b", failure_of(error)))
        time.sleep(200)

with tempfile.TemporaryDirectory() as temporary:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=temporary + "/ray",
             _node_ip_address="127.0.0.1")
    first = ray.remote(First).options(num_cpus=1, max_restarts=0).remote()
    try:
        ray.get(first.train.remote(sys.argv[1]), timeout=150)
    except RayActorError as error:
        store = open_store(sys.argv[1])
        print(failure_of_death(error, store, "searches/a/b", overdue=False, seconds=1.0).kind)
    ray.shutdown()
"""


@pytest.mark.slow
def test_what_another_worker_has_failed_with_is_the_failure_of_a_trial_that_is_stuck(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path)], check=False, env=environment, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "out_of_memory", "which is not tried again"


def test_a_process_that_could_not_leave_traces_hung_all_the_same(tmp_path: Path) -> None:
    error = RayActorError(error_msg="The actor is dead because it was killed by `ray.kill`.")
    found = failure_of_death(error, open_store(str(tmp_path)), "searches/a/b", overdue=True, seconds=30.0)
    assert found.kind == "timeout"
    assert "no trace" in found.message

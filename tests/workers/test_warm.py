"""Trial processes that are there before a trial is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from structlog.testing import capture_logs

from workers import driver_pool, warm
from workers.driver import wait_for_order
from workers.driver_pool import DriverPool
from workers.settings import WorkerSettings
from workers.termination import Termination

ROOT = Path(__file__).parents[2]

FIRST_TRIALS = """
import json, os, sys, tempfile, time
os.umask(0o077)
os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
import psutil, ray
from ray import tune
from workers import warm

warm.IMPORTS = ("no_such_module", "tests.workers.short")  # one that fails, and what stands for torch
started, kept = int(sys.argv[1]), int(sys.argv[2])


def processes():
    ours = psutil.Process().children(recursive=True)
    return [p.pid for p in ours if "ray::IDLE" in " ".join(p.cmdline())]


with tempfile.TemporaryDirectory() as folder:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder + "/ray",
             _node_ip_address="127.0.0.1", runtime_env=warm.runtime_environment())
    before = set(processes())
    asked = warm.RESERVE.start(started)
    while len(ready := set(processes()) - before) < asked:
        time.sleep(0.1)
    warm.RESERVE.keep(kept)
    deadline = time.monotonic() + 30
    while len(waiting := ready & set(processes())) > kept and time.monotonic() < deadline:
        time.sleep(0.1)
    import tests.workers.short as short

    tuner = tune.Tuner(
        tune.with_resources(short.Short, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=short.ThreeAtOnce(), num_samples=-1, max_concurrent_trials=100,
                                    reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, name="short", verbose=0),
    )
    used = {result.metrics["pid"] for result in tuner.fit()}
    ray.shutdown()
    deadline = time.monotonic() + 20
    while (left := [pid for pid in used | ready if psutil.pid_exists(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    told = {"ready": ready, "waiting": waiting, "used": used}
    print(json.dumps({"asked": asked, "left": left, **{name: sorted(pids) for name, pids in told.items()}}))
"""


def node(name: str, cpus: float, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus} if cpus else {}}


def test_processes_are_spread_over_the_nodes_and_never_more_than_their_cpus() -> None:
    nodes = [node("a", 2), node("b", 64), node("c", 1), node("d", 0), node("e", 8, alive=False)]
    assert warm.shares(nodes, 0) == {}
    assert warm.shares(nodes, 2) == {"a": 1, "b": 1}
    assert warm.shares(nodes, 7) == {"a": 2, "b": 4, "c": 1}
    assert warm.shares(nodes, 1000) == {"a": 2, "b": 64, "c": 1}


def test_another_version_of_ray_starts_its_processes_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", "2.99.0")
    with capture_logs() as logs:
        assert warm.Reserve().start(4) == 0
    assert [(line["event"], line["ray"]) for line in logs] == [("trials.not_warmed", "2.99.0")]


def first_trials(started: int, kept: int = 9) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ATTUNE_"))}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_TRIALS, str(started), str(kept)],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_the_first_trials_find_their_processes_ready_and_none_is_left_behind() -> None:
    found = first_trials(2)
    assert found["asked"] == 2
    assert found["used"]
    assert set(found["used"]) <= set(found["ready"]), "a trial had to wait for a process of its own"
    assert found["left"] == []


@pytest.mark.slow
def test_trials_run_without_processes_that_are_ready() -> None:
    found = first_trials(0)
    assert found["ready"] == []
    assert found["used"]
    assert found["left"] == []


@pytest.mark.slow
def test_processes_that_are_too_many_end_and_the_others_are_used() -> None:
    found = first_trials(2, kept=1)
    assert len(found["ready"]) == 2
    assert len(found["waiting"]) == 1, "it stays although nobody needs it"
    assert set(found["waiting"]) <= set(found["used"])
    assert found["left"] == []


def test_what_waits_is_what_has_been_started_less_what_trials_have_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(warm, "_end_one", ended.append)
    reserve = warm.Reserve()
    reserve._waiting.update({"a": 1, "b": 2})
    reserve.took("actor 1", "b")
    reserve.took("actor 1", "b")  # its second trial
    reserve.took("actor 2", "elsewhere")
    reserve.keep(2)
    assert (len(reserve), ended) == (2, [])
    reserve.keep(1)
    reserve.keep(-3)  # more trials run than the search may have now
    assert (len(reserve), sorted(ended)) == (0, ["a", "b"])


def test_a_search_without_a_trial_to_start_keeps_none_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(warm, "_end_one", ended.append)
    monkeypatch.setattr(warm, "IDLE_SECONDS", 0.2)
    reserve = warm.Reserve()
    reserve._waiting.update({"a": 2})
    reserve.nothing_to_start(True)
    reserve.keep(2)
    reserve.nothing_to_start(False)
    time.sleep(0.3)
    reserve.keep(2)
    assert ended == [], "there was something to start in between"
    reserve.nothing_to_start(True)
    time.sleep(0.3)
    reserve.nothing_to_start(True)
    reserve.keep(2)
    assert ended == ["a", "a"]


def test_a_driver_is_told_to_start_no_more_than_its_share(tmp_path: Path) -> None:
    pool = DriverPool(WorkerSettings(home=tmp_path, warm_processes=4), "127.0.0.1:1", tied=False)
    try:
        pool.keep_spare(2)
        [driver] = [p for p in psutil.Process().children() if "workers.driver" in p.cmdline()]
        assert driver.environ()["ATTUNE_WARM_PROCESSES"] == "2"
    finally:
        pool.close()


def test_a_spare_driver_is_told_of_slots_that_become_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, python = tmp_path / "heard", tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec cat > {heard}\n")
    python.chmod(0o700)
    monkeypatch.setattr(driver_pool.sys, "executable", str(python))
    pool = DriverPool(WorkerSettings(home=tmp_path, warm_processes=3), "127.0.0.1:1", tied=False)
    for share in (1, 1, 2, 1, 2, 8, 8):
        pool.keep_spare(share)
    driver = pool.start("s", 1, lambda name: None, share=8)
    deadline = time.monotonic() + 10
    while driver.process.is_alive and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = [json.loads(line) for line in heard.read_text().splitlines()]
    assert lines[:-1] == [{"warm": 2}, {"warm": 3}]
    assert lines[-1]["search"] == "s"


def test_a_driver_hears_every_line_before_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = {"search": "s", "attempt": 2, "log": str(tmp_path / "log")}
    lines = "".join(json.dumps(line) + "\n" for line in ({"warm": 2}, {"warm": 3}, order))
    told: list[int] = []
    reading, writing = os.pipe()
    os.write(writing, lines.encode())  # all at once, and the other end stays open
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w"):
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("os.dup2", lambda *descriptors: None)
        assert wait_for_order(Termination(), told.append, lambda: told.append(0)) == ("s", 2)
    assert told == [2, 3], "with an order there already, nothing else is done"


def test_more_trial_processes_go_to_the_nodes_that_have_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"NodeID": name, "Alive": True, "Resources": {"CPU": 1.0}, "NodeManagerAddress": name, "NodeManagerPort": 1}
        for name in ("a", "b")
    ]
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(warm.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(warm, "_prestart", lambda raylet, number: asked.append((raylet, number)))
    reserve = warm.Reserve()
    assert [reserve.start(most) for most in (1, 1, 2, 2)] == [1, 1, 2, 2]
    assert asked == [("a:1", 1), ("b:1", 1)]

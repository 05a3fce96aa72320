"""The guards of what is changed in Tune, and that nothing waits for a slot which a free process holds.

That both processes are used with short trials, after a death and after an exception, is in tests/e2e/test_reuse.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.tune import registry
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from structlog.testing import capture_logs

from workers.deaths import PATCHED_RAY
from workers.fewer_calls import make_fewer_calls
from workers.reuse import end_with_experiment, keep_starting_actors, let_go_when_full
from workers.snapshots import keep_no_snapshots

ROOT = Path(__file__).parents[2]

MORE_THAN_FIT = """
import json, os, tempfile
os.umask(0o077)
os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
import ray
from ray import tune
import workers.reuse as reuse
from pathlib import Path
from tests.workers.short import Short, ThreeAtOnce
from workers.snapshots import keep_no_snapshots

reuse.PATIENCE_SECONDS = 1.0
reuse.keep_starting_actors()
keep_no_snapshots()
with tempfile.TemporaryDirectory() as folder:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=folder + "/ray",
             _node_ip_address="127.0.0.1")
    tuner = tune.Tuner(
        tune.with_resources(Short, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=ThreeAtOnce(), num_samples=-1, max_concurrent_trials=100,
                                    reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, name="short", verbose=0),
    )
    results = tuner.fit()
    [state] = [json.loads(path.read_text()) for path in Path(folder, "short").glob("experiment_state*.json")]
    trials = sorted(result.metrics["number"] for result in results)
    print(json.dumps({"trials": trials, "written": state["trial_data"]}))
    ray.shutdown()
"""


FEWER = """
import json, os, sys, tempfile, time
os.umask(0o077)
os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
import ray
from ray import tune
from ray.tune import Stopper
from ray.tune.search import Searcher
from tests.workers.short import Short, ThreeAtOnce
from workers.reuse import keep_starting_actors, let_go_when_full

LIVE, FREE = set(), []


class Lasting(Short):
    def step(self):
        time.sleep(0.2)
        self.steps = getattr(self, "steps", 0) + 1
        return {"number": self.number, "done": self.number != 2 or self.steps == 40}

    def reset_config(self, new_config):
        self.steps = 0
        return super().reset_config(new_config)


class TwoThenOne(ThreeAtOnce):
    def suggest(self, trial_id):
        if self.given == 3:
            return Searcher.FINISHED
        if len(self.live) >= (2 if self.given < 2 else 1):
            return None
        LIVE.add(trial_id)
        return super().suggest(trial_id)

    def on_trial_complete(self, trial_id, result=None, error=False):
        LIVE.discard(trial_id)
        super().on_trial_complete(trial_id, result, error)


class Looking(Stopper):
    def __call__(self, trial_id, result):
        if result["number"] == 2 and len(LIVE) == 1:
            FREE.append(ray.available_resources().get("CPU", 0.0))
        return False

    def stop_all(self):
        return False


keep_starting_actors()
if sys.argv[1] == "changed":
    let_go_when_full(lambda: len(LIVE) >= 1)
with tempfile.TemporaryDirectory() as folder:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder + "/ray",
             _node_ip_address="127.0.0.1")
    tune.Tuner(
        tune.with_resources(Lasting, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=TwoThenOne(), num_samples=-1, max_concurrent_trials=100,
                                    reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, name="fewer", verbose=0, stop=Looking()),
    ).fit()
    print(json.dumps(FREE))
    ray.shutdown()
"""


NEVER_UP = """
import json, os, sys, tempfile, time
os.umask(0o077)
os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
import ray
from ray import tune
from ray.tune import Stopper
from workers.reuse import end_with_experiment


class NeverUp(tune.Trainable):
    def setup(self, config):
        open(config["started"], "w").close()
        time.sleep(600)


class WhenStarting(Stopper):
    since = None

    def __call__(self, trial_id, result):
        return False

    def stop_all(self):
        if os.path.exists(started) and WhenStarting.since is None:
            WhenStarting.since = time.monotonic()
        return WhenStarting.since is not None


end_with_experiment()
with tempfile.TemporaryDirectory() as folder:
    started = folder + "/started"
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=folder + "/ray",
             _node_ip_address="127.0.0.1")
    tune.Tuner(
        tune.with_resources(NeverUp, {"cpu": 1}), param_space={"started": started},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, name="never", verbose=0, stop=WhenStarting()),
    ).fit()
    print(json.dumps(time.monotonic() - WhenStarting.since))
    ray.shutdown()
"""


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> object:
    """Tune's own method, put back afterwards."""
    original = TuneController._maybe_reuse_cached_actor
    original = getattr(original, "__wrapped__", original)
    monkeypatch.setattr(TuneController, "_maybe_reuse_cached_actor", original)
    return original


def test_the_installed_ray_is_the_one_that_is_changed(untouched: object) -> None:
    assert ray.__version__ == PATCHED_RAY
    keep_starting_actors()
    changed = TuneController._maybe_reuse_cached_actor
    assert changed is not untouched
    keep_starting_actors()
    assert TuneController._maybe_reuse_cached_actor is changed, "changed twice"


def test_another_version_of_ray_keeps_its_own_behaviour(untouched: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", "2.99.0")
    state = TuneController._get_trial_checkpoints
    calls = Trial.set_ray_actor, type(registry._global_registry)
    clean_up, end = TuneController._cleanup_cached_actors, TuneController._cleanup_trials
    with capture_logs() as logs:
        keep_starting_actors()
        keep_no_snapshots()
        let_go_when_full(lambda: True)
        end_with_experiment()
        make_fewer_calls()
    assert (Trial.set_ray_actor, type(registry._global_registry)) == calls
    assert TuneController._cleanup_trials is end
    assert TuneController._cleanup_cached_actors is clean_up
    assert TuneController._maybe_reuse_cached_actor is untouched
    assert TuneController._get_trial_checkpoints is state
    assert [(line["event"], line["ray"]) for line in logs] == 5 * [("tune.not_patched", "2.99.0")]


@pytest.mark.slow
def test_trials_that_wait_for_a_slot_take_the_process_that_holds_it() -> None:
    """Three trials at once, as after the loss of a node, where there is room for one."""
    told = told_by(MORE_THAN_FIT)
    assert told["trials"] == list(range(1, 7))
    assert not told["written"], "the database has that already"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["changed", "stock"])
def test_a_slot_that_a_search_gives_up_is_free_at_once(how: str) -> None:
    """Two trials at once, then one: while the long one goes on, the other's slot is free."""
    free = told_by(FEWER, how)
    assert len(free) >= 10
    if how == "changed":
        assert free[-5:] == [1.0] * 5
    else:
        assert 1.0 not in free, "this Tune keeps no process any more: what is changed in it is of no use"


@pytest.mark.slow
def test_a_process_that_does_not_come_up_keeps_no_experiment_from_its_end() -> None:
    assert told_by(NEVER_UP) < 5.0, "Tune waits 15 s, and a cancel is to take 5 s at most"


def told_by(script: str, *arguments: str) -> Any:
    """What a script prints last."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ATTUNE_"))}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])

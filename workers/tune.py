"""The adapters between a SearchRun and Ray Tune: orders become trials, results go back.

Tune pickles searcher and callbacks, so they hold no engine and no lock: they find the run in `RUNS`, by the id of its
search, in the driver's own process.
"""

from __future__ import annotations

import time
from typing import Any

import ray
import structlog
from ray.tune import Callback, Stopper
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from workers.evaluation import request_of
from workers.orders import Failure, Result
from workers.run import Next, SearchRun

RUNS: dict[str, SearchRun] = {}
LIVE: dict[str, Trial] = {}
"""Tune's trials that have a process now, by the id of our row."""

IDLE_SECONDS = 0.1
PATCHED_RAY = "2.60.0"

log = structlog.get_logger()


class OrderSearcher(Searcher):
    """Gives Tune the run's next order."""

    def __init__(self, search_id: str) -> None:
        super().__init__()
        self._search_id = search_id

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        return True  # the run's quota decides, and it changes as searches come and go

    def suggest(self, trial_id: str) -> Any:
        run = RUNS[self._search_id]
        while (order := run.next()) is Next.WAIT and not run.live:
            time.sleep(IDLE_SECONDS)  # Tune would wait much longer for a trial to end when none is running
        if order is Next.WAIT:
            return None
        if isinstance(order, Next):
            return str(Searcher.FINISHED)
        resources = run.plan.spec.resources
        request = request_of(run.plan, order, threads=max(1, int(resources.cpus)))
        return {"order": {"trial_id": order.trial_id, "gpus": resources.gpus, "request": request.to_json()}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback has taken in the result already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the database has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the run is rebuilt from the database."""


class RunCallback(Callback):
    """Gives results, failures and dead processes to the run."""

    def __init__(self, search_id: str) -> None:
        self._search_id = search_id

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        LIVE[trial.config["order"]["trial_id"]] = trial
        if RUNS[self._search_id].stop is not None:
            kill_live_trials()  # it started while the others were being ended

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        run, trial_id = RUNS[self._search_id], result["order_id"]
        if trial_id not in run.live:
            return  # stopped meanwhile
        if "epoch" in result:
            run.ledger.epoch(trial_id, int(result["epoch"]["epoch"]), result["epoch"])
        if "failure" in result:
            run.failed(trial_id, Failure(**result["failure"]))
        elif "result" in result:
            run.succeeded(trial_id, Result(**result["result"]))
        if result.get("done"):
            LIVE.pop(trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        run, trial_id = RUNS[self._search_id], trial.config["order"]["trial_id"]
        LIVE.pop(trial_id, None)
        if trial_id in run.live:
            run.failed(
                trial_id, Failure("killed", "The trial's process died.", str(trial.get_pickled_error() or "")[-8000:])
            )


class RunStopper(Stopper):
    """Ends the experiment when the run has been told to stop."""

    def __init__(self, search_id: str) -> None:
        self._search_id = search_id

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return RUNS[self._search_id].stop is not None


def keep_starting_actors() -> None:
    """Stops Tune from giving up on an actor that is still starting because another one became free.

    With trials shorter than a process's start the second process would never come up, and after a kill everything
    would run on the survivor (Ray PR #42951, issue #51234). This wraps a private method, so it is done only for the
    version it was written for; another version keeps its own behaviour, and the log says so.
    """
    if ray.__version__ != PATCHED_RAY:
        log.warning("tune.not_patched", ray=ray.__version__, written_for=PATCHED_RAY)
        return
    original = TuneController._maybe_reuse_cached_actor
    if getattr(original, "keeps_starting", False):
        return

    def reuse(self: TuneController, trial: Trial) -> bool:
        if trial in self._trial_to_actor and trial not in self._resetting_trials:
            return False
        return bool(original(self, trial))

    reuse.keeps_starting = True  # type: ignore[attr-defined]
    TuneController._maybe_reuse_cached_actor = reuse  # type: ignore[method-assign]


def kill_live_trials() -> None:
    """Ends the processes of all live trials at once: waiting for their epochs would take as long as an epoch."""
    for trial in list(LIVE.values()):
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            ray.kill(actor)

"""The adapters between a SearchRun and Ray Tune: orders become trials, results go back.

Tune pickles searcher and callbacks, so they hold no engine and no lock: they find their Conduct in `CONDUCTS`, by the
id of its search, in the driver's own process. What they call may fail (another attempt holds the search, the database
is gone): that ends the experiment, and the driver raises it again once Tune has returned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
import structlog
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from workers.agenda import Next
from workers.deaths import error_of, failure_of_death
from workers.evaluation import request_of
from workers.nodes import Avoided, node_of
from workers.orders import Failure, Result
from workers.reports import ReportError, checked
from workers.run import SearchRun
from workers.storage.identity import StoreIdentity
from workers.storage.layout import trial_prefix
from workers.storage.store import Store
from workers.warm import RESERVE

IDLE_SECONDS = 0.1

log = structlog.get_logger()


@dataclass(frozen=True)
class Conduct:
    """What the adapters of one search work with. identity: which store the trial processes are to use."""

    run: SearchRun
    store: Store
    identity: StoreIdentity

    @cached_property
    def avoided(self) -> Avoided:
        return Avoided(self.run.ledger.nodes)

    def prefix(self, trial_id: str) -> str:
        return trial_prefix(self.run.ledger.search_id, trial_id)

    @contextmanager
    def keeping_faults(self) -> Iterator[None]:
        """Whatever goes wrong inside ends the run; Tune would wrap or swallow it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again by the driver
            self.run.fault = self.run.fault or error


CONDUCTS: dict[str, Conduct] = {}
LIVE: dict[str, Trial] = {}
"""Tune's trials that have a process now, by the id of our row."""


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
        conduct = CONDUCTS[self._search_id]
        answer: Any = str(Searcher.FINISHED)
        with conduct.keeping_faults():
            answer = self._suggest(conduct)
        return answer

    def _suggest(self, conduct: Conduct) -> Any:
        run = conduct.run
        while (order := run.next()) is Next.WAIT and not run.live:
            time.sleep(IDLE_SECONDS)  # Tune would wait much longer for a trial to end when none is running
            run.tick()
            RESERVE.nothing_to_start(not run.full)
            RESERVE.keep(run.quota)
        RESERVE.nothing_to_start(order is Next.WAIT and not run.full)
        if order is Next.WAIT:
            return None
        if isinstance(order, Next):
            return str(Searcher.FINISHED)
        resources = run.plan.spec.resources
        request = request_of(run.plan, order, threads=max(1, int(resources.cpus / resources.processes)))
        store = {**conduct.identity.to_json(), "prefix": conduct.prefix(order.trial_id)}
        return {
            "avoid": conduct.avoided.now(),
            "order": {
                "trial_id": order.trial_id,
                "gpus": resources.gpus,
                "workers": resources.processes,
                "epoch_timeout": run.limits.epoch,
                "request": request.to_json(),
                "store": store,
            },
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback has taken in the result already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the database has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the run is rebuilt from the database."""


class RunCallback(Callback):
    """Tells the run of trials that start, and of dead processes."""

    def __init__(self, search_id: str) -> None:
        self._search_id = search_id

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        conduct = CONDUCTS[self._search_id]
        trial_id = trial.config["order"]["trial_id"]
        if conduct.run.over:
            kill(trial)  # it started while the others were coming to their ends
            return
        LIVE[trial_id] = trial
        actor = trial.temporary_state.ray_actor
        with conduct.keeping_faults():
            node = node_of(actor)
            if actor is not None:
                RESERVE.took(actor._actor_id.hex(), node)
            conduct.run.began(trial_id, node)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get("done"):
            LIVE.pop(result["order_id"], None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        conduct = CONDUCTS[self._search_id]
        run, trial_id = conduct.run, trial.config["order"]["trial_id"]
        LIVE.pop(trial_id, None)
        with conduct.keeping_faults():
            if trial_id in run.live:
                run.failed(
                    trial_id,
                    failure_of_death(
                        error_of(trial),
                        conduct.store,
                        conduct.prefix(trial_id),
                        overdue=trial_id in run.overdue,
                        seconds=run.limits.epoch,
                    ),
                )


class RunStopper(Stopper):
    """Gives what trials report to the run, which Tune shows to its stopper first, and ends those that the run is done
    with: early, or at the end of their epoch when it is stopping. Then ends the experiment."""

    def __init__(self, search_id: str) -> None:
        self._search_id = search_id

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        conduct = CONDUCTS[self._search_id]
        with conduct.keeping_faults():
            take_in(conduct.run, result)
        return conduct.run.over or result["order_id"] not in conduct.run.live

    def stop_all(self) -> bool:
        conduct = CONDUCTS[self._search_id]
        run = conduct.run
        with conduct.keeping_faults():
            for trial_id in run.tick():
                log.error("trial.hangs", trial=trial_id, seconds=run.limits.epoch)
                if trial_id in LIVE:
                    kill(LIVE[trial_id])
            run.prepare()
        RESERVE.keep(run.quota - len(run.attempts))
        if run.must_end:
            kill_live_trials()
            return True
        return False


def take_in(run: SearchRun, result: dict[str, Any]) -> None:
    """What a trial reports: see `workers.trial_run.TrialRun.step`, and "failure"."""
    trial_id = result["order_id"]
    if trial_id not in run.live:
        return  # ended meanwhile
    try:
        result = checked(result)
    except ReportError as error:  # its process makes sure of it too
        run.failed(trial_id, Failure("error", f"The trial has reported what cannot be kept: {error}"))
        return
    run.noted(trial_id, result.get("notes", ()))
    epochs = [*result.get("restored", ()), *([result["epoch"]] if "epoch" in result else [])]
    for epoch in epochs:
        saved = result.get("checkpoint") if epoch is epochs[-1] else None
        run.epoch(trial_id, int(epoch["epoch"]), epoch, saved and int(saved["epoch"]), complete="result" in result)
        if trial_id not in run.live:
            return  # stopped early
    if "failure" in result:
        run.failed(trial_id, Failure(**result["failure"]))
    elif "result" in result:
        run.succeeded(trial_id, Result(**result["result"]), result.get("weights"))
    elif run.over:
        run.drained(trial_id)
    elif run.hands_over(trial_id):
        run.handed_over(trial_id)


def kill(trial: Trial) -> None:
    """Ends the process of a trial at once."""
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor)


def kill_live_trials() -> None:
    """Ends the processes of all live trials at once: waiting for their epochs would take as long as an epoch."""
    for trial in list(LIVE.values()):
        kill(trial)

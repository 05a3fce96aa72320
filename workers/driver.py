"""One search: strategy, Ray Tune and SQL brought together. `python -m workers.driver SEARCH ATTEMPT`.

The dispatcher starts it with a claimed search. A thread renews the lease and hears what users ask for; Tune's loop
runs in the main thread. It ends by releasing the search with its final status.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from datetime import UTC, datetime

import structlog

from db.engine import make_engine
from db.errors import DatabaseUnavailable, Fenced
from db.models import Search
from db.settings import DatabaseSettings
from search.cost import CostTable
from search.datasets import DatasetEntry
from search.errors import SpecError
from search.plan import SearchPlan, make_plan
from search.space_cost import SpaceCosts
from search.spec import SearchSpec
from workers.budget import Budget
from workers.costs import SqlCostStore
from workers.ledger import Ledger
from workers.logs import configure_logs
from workers.run import SearchRun, Stop
from workers.settings import WorkerSettings
from workers.training.evaluators import load_plugins

MOST_CONCURRENT = 100_000
"""Tune's limit on trials at once; the real one is the run's quota, which changes as searches come and go."""
EXIT_FENCED = 3
"""Another attempt has taken the search over."""

log = structlog.get_logger()


def main(search_id: str, attempt: int) -> int:
    """Runs the search; the exit status is 0 when it has been released in whatever status."""
    configure_logs()
    settings = WorkerSettings()
    structlog.contextvars.bind_contextvars(search=search_id, attempt=attempt)
    load_plugins()
    engine = make_engine(DatabaseSettings().url)
    ledger = Ledger(engine, search_id, attempt, evaluation_lease=2 * settings.lease_seconds)
    heartbeat = Heartbeat(ledger, settings.lease_seconds)
    try:
        try:
            heartbeat.start()
            run = _prepare(ledger, SqlCostStore(engine))
        except SpecError as error:
            log.error("driver.refused", problems=[p.field for p in error.problems])
            heartbeat.stop()
            ledger.release("failed", {"kind": "spec", "message": str(error)[:2000]})
            return 0
        heartbeat.attach(run)
        _run_tune(run, settings, heartbeat)
        run.cancel_live()
        heartbeat.stop()
        log.info("driver.done", status=run.status)
        ledger.release(run.status, run.error)
        return 0
    except Fenced:
        log.warning("driver.fenced")
        return EXIT_FENCED
    finally:
        heartbeat.stop()


def plan_of(search: Search, datasets: dict[str, DatasetEntry]) -> SearchPlan:
    """The plan of a stored search; SpecError when what it names is gone."""
    return make_plan(SearchSpec.parse_stored(search.spec), datasets)


def _prepare(ledger: Ledger, store: SqlCostStore) -> SearchRun:
    search = ledger.search()
    entries = [DatasetEntry.model_validate(row.document) for row in ledger.datasets()]
    plan = plan_of(search, {entry.name: entry for entry in entries})
    table = CostTable(plan.backbone, plan.task, store)
    costs = SpaceCosts(plan.space, table)
    plan.check_constraints(costs)
    started = search.started_at or datetime.now(UTC)
    elapsed = max(0.0, ((search.heartbeat_at or started) - started).total_seconds())
    run = SearchRun(plan, costs, table, ledger, Budget(plan.spec, elapsed))
    run.set_quota(search.quota)
    store.flush()
    return run


def _run_tune(run: SearchRun, settings: WorkerSettings, heartbeat: Heartbeat) -> None:
    """Runs the search's trials on Ray until the run is done or stopped."""
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_GLOBAL_CHECKPOINT_S="3600",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
    )
    import ray
    from ray import tune

    from workers.trial import TrialActor
    from workers.tune import LIVE, RUNS, OrderSearcher, RunCallback, RunStopper

    ray.init(address=settings.ray_address, log_to_driver=False, logging_level=logging.WARNING)
    heartbeat.listen()
    search_id = run.ledger.search_id
    RUNS[search_id] = run
    resources = run.plan.spec.resources
    most = resources.concurrent or MOST_CONCURRENT
    folder = tempfile.mkdtemp(prefix=f"attune-tune-{os.getpid()}-")
    try:
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=OrderSearcher(search_id), num_samples=-1, max_concurrent_trials=most, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                name=search_id,
                callbacks=[RunCallback(search_id)],
                stop=RunStopper(search_id),
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        LIVE.clear()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


class Heartbeat:
    """The thread that renews the lease, and through which quota, pause and cancel reach the run."""

    def __init__(self, ledger: Ledger, lease_seconds: float) -> None:
        self._ledger = ledger
        self._lease = lease_seconds
        self._run: SearchRun | None = None
        self._wake = threading.Event()
        self._ended = False
        self._missed = 0.0
        self._stop: Stop | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self.listen()
        self._thread.start()

    def listen(self) -> None:
        """SIGTERM hands the search back. To be called again after `ray.init`, which puts its own handler there."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop_run(Stop.HAND_BACK))

    def attach(self, run: SearchRun) -> None:
        self._run = run
        if self._stop is not None:
            self._stop_run(self._stop)

    def stop(self) -> None:
        self._ended = True
        self._wake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def _beat(self) -> None:
        interval = min(1.0, self._lease / 4)
        while not self._ended:
            try:
                search = self._ledger.heartbeat(self._lease)
                self._missed = 0.0
            except DatabaseUnavailable as error:
                self._missed += interval
                log.warning("driver.database_away", error=str(error), seconds=self._missed)
            else:
                if search is None and not self._ended:
                    log.warning("driver.lost_lease")
                    self._die()
                if search is not None:
                    self._obey(search)
            self._wake.wait(interval)

    def _obey(self, search: Search) -> None:
        if self._run is None:
            return
        self._run.set_quota(search.quota)
        if search.command == "cancel":
            self._stop_run(Stop.CANCEL)
        elif search.command == "pause":
            self._stop_run(Stop.PAUSE)

    def _stop_run(self, stop: Stop) -> None:
        self._stop = stop
        run = self._run
        if run is None or run.stop is not None:
            return
        log.info("driver.stopping", because=stop.name.lower())
        run.stop = stop
        from workers.tune import kill_live_trials

        kill_live_trials()

    def _die(self) -> None:
        """A fenced driver must not write; its trials end with it, as Ray ends a job's workers with its driver."""
        sys.stderr.flush()
        os._exit(EXIT_FENCED)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        raise SystemExit("usage: python -m workers.driver SEARCH ATTEMPT")
    raise SystemExit(main(sys.argv[1], int(sys.argv[2])))

"""One search: strategy, Ray Tune and SQL brought together, in a process of its own: `python -m workers.driver`.

It gets ready, then waits for the dispatcher to write a claimed search to its standard input. A thread renews the lease
and hears what users ask for; Tune's loop runs in the main thread. It ends by releasing the search with its final
status.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime

import structlog

from db.engine import make_engine
from db.errors import Fenced
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
from workers.driver_pool import TIED_TO
from workers.heartbeat import EXIT_FENCED, Heartbeat
from workers.ledger import Ledger
from workers.logs import configure_logs
from workers.run import SearchRun
from workers.settings import WorkerSettings
from workers.training.evaluators import load_plugins
from workers.weights import check_weights

MOST_CONCURRENT = 100_000
"""Tune's limit on trials at once; the real one is the run's quota, which changes as searches come and go."""
PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


def tie_to_dispatcher() -> None:
    """Lets the kernel end this process with the dispatcher that owns its Ray, however that dies (Linux only)."""
    dispatcher = os.environ.get(TIED_TO)
    if dispatcher is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(dispatcher):  # it has died before the line above
        raise SystemExit(1)


def warm_up(settings: WorkerSettings) -> None:
    """What takes seconds and needs no search: importing Tune and torch, and joining the cluster."""
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_GLOBAL_CHECKPOINT_S="3600",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
    )
    import ray

    from workers.tune import keep_starting_actors

    keep_starting_actors()
    for name in ("workers.trial", "torch"):
        importlib.import_module(name)
    ray.init(address=settings.ray_address, log_to_driver=False, logging_level=logging.WARNING)


def wait_for_order() -> tuple[str, int] | None:
    """The search and attempt that the dispatcher writes to standard input, and the log to write from then on; None
    when the dispatcher has closed it."""
    line = sys.stdin.readline()
    if not line:
        return None
    order = json.loads(line)
    with open(order["log"], "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return order["search"], order["attempt"]


def main(search_id: str, attempt: int, settings: WorkerSettings) -> int:
    """Runs the search; the exit status is 0 when it has been released in whatever status."""
    structlog.contextvars.bind_contextvars(search=search_id, attempt=attempt)
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
        _run_tune(run, heartbeat)
        run.cancel_live()
        ledger.flush()  # while the lease is still renewed: a database that is away may take a while
        heartbeat.stop()
        log.info("driver.done", status=run.status)
        ledger.release(run.status, run.error)
        return 0
    except Fenced:
        log.warning("driver.fenced")
        return EXIT_FENCED
    finally:
        heartbeat.stop()


def plan_of(search: Search, datasets: dict[str, DatasetEntry], weights: dict[str, str]) -> SearchPlan:
    """The plan of a stored search; SpecError when what it names is gone."""
    return make_plan(SearchSpec.parse_stored(search.spec), datasets, weights)


def _prepare(ledger: Ledger, store: SqlCostStore) -> SearchRun:
    search = ledger.search()
    entries = [DatasetEntry.model_validate(row.document) for row in ledger.datasets()]
    plan = plan_of(search, {entry.name: entry for entry in entries}, ledger.weights())
    check_weights(plan)
    table = CostTable(plan.backbone, plan.task, store)
    costs = SpaceCosts(plan.space, table)
    plan.check_constraints(costs)
    started = search.started_at or datetime.now(UTC)
    elapsed = max(0.0, ((search.heartbeat_at or started) - started).total_seconds())
    run = SearchRun(plan, costs, table, ledger, Budget(plan.spec, elapsed))
    run.set_quota(search.quota)
    store.flush()
    return run


def _run_tune(run: SearchRun, heartbeat: Heartbeat) -> None:
    """Runs the search's trials on Ray until the run is done or stopped."""
    from ray import tune

    from workers.trial import TrialActor
    from workers.tune import LIVE, RUNS, OrderSearcher, RunCallback, RunStopper

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
        shutil.rmtree(folder, ignore_errors=True)


def start() -> int:
    configure_logs()
    tie_to_dispatcher()
    load_plugins()
    settings = WorkerSettings()
    warm_up(settings)
    order = wait_for_order()
    return 0 if order is None else main(*order, settings)


if __name__ == "__main__":
    raise SystemExit(start())

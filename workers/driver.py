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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from sqlalchemy import Engine

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
from workers.budget import ActiveTime
from workers.costs import SqlCostStore
from workers.driver_pool import TIED_TO
from workers.heartbeat import EXIT_FENCED, EXIT_NO_DATABASE, Heartbeat
from workers.ledger import Ledger
from workers.logs import configure_logs
from workers.orders import Failure
from workers.outdated import published_anew
from workers.patience import Patience
from workers.run import SearchRun
from workers.settings import WorkerSettings
from workers.stopping import Limits
from workers.storage.agreement import agreed_store
from workers.storage.errors import StorageError
from workers.storage.identity import StoreIdentity
from workers.storage.store import open_store
from workers.termination import EXIT_TERMINATED, Termination
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
    """What takes seconds and needs no search: joining the cluster, trial processes, imports."""
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_GLOBAL_CHECKPOINT_S="3600",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
    )
    import ray

    from workers.warm import RESERVE, runtime_environment

    ray.init(
        address=settings.ray_address,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        runtime_env=runtime_environment() if settings.warm_processes else None,
    )
    asked = RESERVE.start(settings.warm_processes)

    from workers.deaths import take_memory_for_deaths
    from workers.fewer_calls import make_fewer_calls
    from workers.reuse import end_with_experiment, keep_starting_actors
    from workers.snapshots import keep_no_snapshots

    keep_starting_actors()
    end_with_experiment()
    make_fewer_calls()
    keep_no_snapshots()
    take_memory_for_deaths()
    for name in ("workers.trial", "torch"):
        importlib.import_module(name)
    log.info("driver.ready", trial_processes=asked)


def wait_for_order(
    termination: Termination, warm: Callable[[int], object], meanwhile: Callable[[], object]
) -> tuple[str, int] | None:
    """The search and attempt that the dispatcher writes to standard input, and the log to write from then on; None
    when the dispatcher has closed it, or SIGTERM came first.

    warm: told how many trial processes to have ready, as often as the dispatcher says so before. meanwhile: called once
    if there is time.
    """
    busy = True
    while True:
        if busy and not termination.has_line():
            meanwhile()
            busy = False
        line = termination.line()
        if line is None:
            return None
        order = json.loads(line)
        if "search" in order:
            break
        warm(order["warm"])
    with open(order["log"], "ab") as file, open(os.devnull, "wb") as nowhere:
        os.dup2(file.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)  # where Ray prints what its raylets say of processes that have died
    return order["search"], order["attempt"]


def main(search_id: str, attempt: int, settings: WorkerSettings, termination: Termination) -> int:
    """Runs the search; the exit status is 0 when it has been released in whatever status."""
    structlog.contextvars.bind_contextvars(search=search_id, attempt=attempt)
    engine = make_engine(DatabaseSettings().url)
    ledger = Ledger(
        engine, search_id, attempt, evaluation_lease=2 * settings.lease_seconds, outage=settings.outage_seconds
    )
    heartbeat: Heartbeat | None = None
    try:
        active = ActiveTime(ledger.search().active_seconds)
        heartbeat = Heartbeat(ledger, settings.lease_seconds, active, termination)
        heartbeat.start()
        return _drive(ledger, heartbeat, active, engine, settings, termination)
    except Fenced:
        log.warning("driver.fenced")
        return EXIT_FENCED
    except DatabaseUnavailable as error:
        log.error("driver.gave_up", error=str(error), patience=settings.outage_seconds)
        return EXIT_NO_DATABASE
    except Exception:
        log.exception("driver.failed")
        return 1
    finally:
        if heartbeat is not None:
            heartbeat.stop()


def _drive(ledger: Ledger, heartbeat: Heartbeat, active: ActiveTime, engine: Engine, settings: WorkerSettings,
           termination: Termination) -> int:  # fmt: skip
    try:
        patience = Patience(engine, settings.outage_seconds)
        identity = patience.repeat(lambda: agreed_store(engine, settings.storage_url))
        run = _prepare(ledger, SqlCostStore(engine), active, settings)
    except (SpecError, StorageError) as error:
        refused = _refusal(error)
        log.error("driver.refused", kind=refused.kind, error=refused.message)
        heartbeat.stop()
        released = ledger.release("failed", {"kind": refused.kind, "message": refused.message}, active.seconds)
        return 0 if released else EXIT_FENCED
    heartbeat.attach(run)
    if run.plan.spec.resources.trials_per_gpu == "auto" and not run.over:
        run = _probed(run, lambda: _prepare(ledger, SqlCostStore(engine), active, settings))
        heartbeat.attach(run)
    if not run.over:
        _run_tune(run, identity, termination)
    if run.fault is not None:
        raise run.fault
    run.cancel_live()
    ledger.flush()  # while the lease is still renewed: a database that is away may take a while
    if run.outdated and not published_anew(run, lambda: termination.asked):
        run.give_up(Failure("dataset", "The data have changed, and no dispatcher has published them as they are now."))
    heartbeat.stop()
    released = ledger.release(run.status, run.error, active.seconds)
    log.info("driver.done", status=run.status, released=released)
    return 0 if released else EXIT_FENCED


def plan_of(search: Search, datasets: dict[str, DatasetEntry], weights: dict[str, str]) -> SearchPlan:
    """The plan of a stored search; SpecError when what it names is gone."""
    return make_plan(SearchSpec.parse_stored(search.spec), datasets, weights)


def _refusal(error: SpecError | StorageError) -> Failure:
    """Why a search fails before its first trial: it names something that is not there any more."""
    if isinstance(error, StorageError):
        return Failure("storage", str(error)[:2000])
    fields = {problem.field.partition(".")[0] for problem in error.problems}
    kind = {"dataset": "dataset", "init": "weights"}.get(fields.pop() if len(fields) == 1 else "", "error")
    return Failure(kind, str(error)[:2000])  # type: ignore[arg-type]


def _prepare(ledger: Ledger, store: SqlCostStore, active: ActiveTime, settings: WorkerSettings) -> SearchRun:
    search = ledger.search()
    entries = [DatasetEntry.model_validate(row.document) for row in ledger.datasets()]
    plan = ledger.follow(plan_of(search, {entry.name: entry for entry in entries}, ledger.weights()))
    check_weights(plan)
    table = CostTable(plan.backbone, plan.task, store)
    costs = SpaceCosts(plan.space, table)
    plan.check_constraints(costs)
    limits = Limits(epoch=settings.epoch_timeout, drain=settings.drain_seconds)
    run = SearchRun(plan, costs, table, ledger, active, limits)
    run.set_quota(search.quota)
    store.flush()
    return run


def _probed(run: SearchRun, prepare: Callable[[], SearchRun]) -> SearchRun:
    """The run with its trials' share of a GPU; as it was where it has been stopped meanwhile."""
    from workers.probe import settle_share

    settle_share(run)
    return run if run.over else prepare()


def _run_tune(run: SearchRun, identity: StoreIdentity, termination: Termination) -> None:
    """Runs the search's trials on Ray until the run is done or stopped."""
    from ray import tune

    from workers.nodes import placed_by
    from workers.reuse import let_go_when_full
    from workers.trial import TrialActor
    from workers.tune import CONDUCTS, LIVE, Conduct, OrderSearcher, RunCallback, RunStopper, kill_live_trials

    termination.listen()
    search_id = run.ledger.search_id
    CONDUCTS[search_id] = Conduct(run, open_store(identity.url), identity)
    let_go_when_full(lambda: run.full)
    resources = run.plan.spec.resources
    most = resources.concurrent or MOST_CONCURRENT
    folder = tempfile.mkdtemp(prefix=f"attune-tune-{os.getpid()}-")
    try:
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, placed_by(resources.cpus, resources.gpus, resources.processes)),
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
        kill_live_trials()
        LIVE.clear()
        shutil.rmtree(folder, ignore_errors=True)
        forget_artifacts(search_id)


def forget_artifacts(search_id: str) -> None:
    """Removes what Tune has put into Ray's own folder for this search: on a standing cluster nobody else would."""
    import ray

    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())  # type: ignore[union-attr]
    for left in session.glob(f"artifacts/*/{search_id}"):
        shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):  # another search began in the same second: it is named after that
            left.parent.rmdir()


def start() -> int:
    termination = Termination()
    termination.hold()
    configure_logs()
    tie_to_dispatcher()
    load_plugins()
    settings = WorkerSettings()
    warm_up(settings)
    termination.listen()

    from workers.warm import RESERVE

    def import_the_rest() -> None:
        importlib.import_module("torch._dynamo")  # torch does so when a network is counted, which takes seconds

    order = wait_for_order(termination, RESERVE.start, import_the_rest)
    if order is None:
        return EXIT_TERMINATED if termination.asked else 0
    return main(*order, settings, termination)


if __name__ == "__main__":
    raise SystemExit(start())

"""Claims searches and runs a driver for each: `python -m workers.dispatcher`.

Any number of dispatchers may run: the claim is one statement. A driver renews its own lease, so a search survives the
dispatcher that started its driver.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import catalog, claims, searches
from db.catalog import PublishedDataset
from db.engine import make_engine, reading, retrying
from db.errors import DatabaseUnavailable
from db.models import Search
from db.settings import DatabaseSettings
from db.upgrades import upgrade
from search.datasets import DatasetEntry
from workers.datasets import DATASETS, DatasetError
from workers.driver_pool import Driver, DriverPool
from workers.heartbeat import EXIT_FENCED
from workers.logs import configure_logs
from workers.ray_cluster import RayCluster
from workers.settings import WorkerSettings
from workers.shares import quotas, slots
from workers.training.evaluators import load_plugins
from workers.weights import readable_weights

TICK_SECONDS = 0.25
PUBLISH_SECONDS = 5.0
START_SECONDS = 60.0
"""How long the dispatcher keeps the lease for a driver that is still starting (it imports Ray first)."""
GRACE_SECONDS = 25.0
"""How long drivers may take to hand their searches back when the dispatcher is stopped."""

log = structlog.get_logger()


class Dispatcher:
    """One dispatcher process: claim, start, watch, share out, publish."""

    def __init__(self, settings: WorkerSettings, engine: Engine, cluster: RayCluster) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self._settings = settings
        self._engine = engine
        self._cluster = cluster
        self._drivers: dict[str, Driver] = {}
        self._pool = DriverPool(settings, cluster.address, tied=cluster.is_local)
        self._stopping = threading.Event()
        self._published_at = float("-inf")
        self._carried_at = float("-inf")
        self._nodes: list[dict[str, Any]] = []
        self._database_was_away = False

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """Works until `stop`; a database that is away is waited for."""
        self._wait_for_database(lambda: upgrade(self._engine))
        entries = [PublishedDataset(e.name, e.fingerprint, e.model_dump(mode="json")) for e in readable_datasets()]
        publisher = self.owner.split(":")[0]
        self._wait_for_database(
            lambda: retrying(self._engine, lambda s: catalog.publish_datasets(s, entries, published_by=publisher))
        )
        log.info("dispatcher.ready", datasets=[entry.name for entry in entries])
        try:
            while not self._stopping.is_set():
                try:
                    self._tick()
                except DatabaseUnavailable as error:
                    log.warning("dispatcher.database_away", error=str(error))
                    self._database_was_away = True
                    self._stopping.wait(1.0)
                self._stopping.wait(TICK_SECONDS)
        finally:
            self._hand_back()  # whatever ended the loop: a local Ray ends with this process

    def _wait_for_database(self, work: Callable[[], None]) -> None:
        """Repeats `work` until the database answers or the dispatcher is stopped."""
        while not self._stopping.is_set():
            try:
                return work()
            except DatabaseUnavailable as error:
                log.warning("dispatcher.database_away", error=str(error))
                self._stopping.wait(1.0)

    def _tick(self) -> None:
        if self._database_was_away:  # leases ran out while nobody could renew them, which says nothing of the drivers
            self._carry_leases(list(self._drivers.values()))
            self._database_was_away = False
        self._reap()
        self._pool.keep_spare()
        if time.monotonic() - self._carried_at >= self._settings.lease_seconds / 4:
            self._carry_leases([d for d in self._drivers.values() if time.monotonic() - d.started < START_SECONDS])
            self._carried_at = time.monotonic()
        if time.monotonic() - self._published_at >= PUBLISH_SECONDS:
            self._publish_nodes()
            self._published_at = time.monotonic()
        most = max(1, slots(self._nodes, 1, 0))
        while len(self._drivers) < most and (search := self._claim(most)) is not None:
            stale = self._drivers.pop(search.id, None)
            if stale is not None:  # it gave no sign of life for a whole lease
                log.error("driver.silent", search=search.id, attempt=stale.attempt, pid=stale.process.pid)
                stale.process.kill()
                stale.process.wait()
            self._share()
            self._start(search)

    def _claim(self, most: int) -> Search | None:
        """The next search whose trials fit on the cluster; the others are told why they wait."""
        with reading(self._engine) as session:
            waiting = {search.id: (_resources(search), search.waiting_reason) for search in searches.queued(session)}
        unfit = [search_id for search_id, (wanted, _) in waiting.items() if not slots(self._nodes, *wanted)]
        reasons = {search_id: _why_waiting(*waiting[search_id][0]) for search_id in unfit}

        def work(session: Session) -> Search | None:
            for search_id, reason in reasons.items():
                if waiting[search_id][1] != reason:
                    searches.set_waiting_reason(session, search_id, reason)
            return claims.claim_next(
                session, self.owner, self._settings.lease_seconds, most_running=most, passing_over=unfit
            )

        return retrying(self._engine, work, attempts=2)

    def _carry_leases(self, drivers: Sequence[Driver]) -> None:
        """Renews leases for drivers that are starting; from then on they do it themselves."""
        alive = [driver for driver in drivers if driver.process.poll() is None]

        def work(session: Session) -> None:
            for driver in alive:
                claims.renew(session, driver.search_id, driver.attempt, self._settings.lease_seconds)

        if alive:
            retrying(self._engine, work, attempts=2)

    def _publish_nodes(self) -> None:
        nodes = self._nodes = self._cluster.nodes()
        running = [
            {"search_id": d.search_id, "attempt": d.attempt, "pid": d.process.pid} for d in self._drivers.values()
        ]

        document = {"dispatcher": self.owner, "drivers": running, "weights": readable_weights()}

        def work(session: Session) -> None:
            for node in nodes:
                catalog.publish_node(session, node["id"], {**node, **document})

        retrying(self._engine, work, attempts=2)
        self._share()

    def _share(self) -> None:
        """Gives every running search its share of the slots that its trials find."""
        with reading(self._engine) as session:
            running = claims.running(session)
        priorities = {search.id: search.priority for search in running}
        shares = {s.id: quotas(slots(self._nodes, *_resources(s)), priorities)[s.id] for s in running}
        retrying(self._engine, lambda s: claims.set_quotas(s, shares), attempts=2)

    def _start(self, search: Search) -> None:
        search_id, attempt = search.id, search.attempt
        if search.deaths >= self._settings.driver_attempts:
            message = f"{search.deaths} drivers of this search have died without progress; see the dispatcher's logs."
            error = {"kind": "driver", "message": message}
            retrying(self._engine, lambda s: claims.release(s, search_id, attempt, "failed", error=error))
            log.error("search.given_up", search=search_id, attempt=attempt)
            return
        driver = self._drivers[search_id] = self._pool.start(search_id, attempt)
        log.info("driver.started", search=search_id, attempt=attempt, pid=driver.process.pid)

    def _reap(self) -> None:
        """Looks after drivers that have ended; one that died without a word loses its lease at once."""
        for driver in list(self._drivers.values()):
            code = driver.process.poll()
            if code is None:
                continue
            if code not in (0, EXIT_FENCED):
                log.error(
                    "driver.died", search=driver.search_id, attempt=driver.attempt, code=code, log=str(driver.log_file)
                )
                self._requeue(driver)
            else:
                log.info("driver.ended", search=driver.search_id, attempt=driver.attempt)
            del self._drivers[driver.search_id]
            self._share()

    def _requeue(self, driver: Driver) -> None:
        retrying(
            self._engine,
            lambda session: claims.release(
                session, driver.search_id, driver.attempt, "queued", died=not self._stopping.is_set()
            ),
            attempts=2,
        )

    def _hand_back(self) -> None:
        """Lets the drivers put their searches back into the queue, and ends those that take too long."""
        for driver in self._drivers.values():
            driver.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for driver in self._drivers.values():
            try:
                driver.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("driver.killed", search=driver.search_id, attempt=driver.attempt)
                driver.process.kill()
                driver.process.wait()
        self._pool.close()
        try:
            self._reap()
            retrying(self._engine, self._forget_local_nodes, attempts=2)
        except DatabaseUnavailable as error:  # the leases run out by themselves
            log.warning("dispatcher.database_away", error=str(error))
        log.info("dispatcher.stopped")

    def _forget_local_nodes(self, session: Session) -> None:
        """A local Ray ends with this process."""
        for node in self._nodes if self._cluster.is_local else []:
            catalog.forget_node(session, node["id"])


def _resources(search: Search) -> tuple[float, float]:
    """CPUs and GPUs of one trial."""
    wanted = search.spec["resources"]
    return float(wanted["cpus"]), float(wanted["gpus"])


def _why_waiting(cpus: float, gpus: float) -> str:
    return f"No node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for a trial."


def readable_datasets() -> list[DatasetEntry]:
    """The data sets that this machine has; one that cannot be read is left out and said so."""
    entries = []
    for dataset in DATASETS:
        try:
            entries.append(dataset.entry())
        except DatasetError as error:
            log.warning("dataset.unreadable", dataset=dataset.name, error=str(error))
    return entries


def main() -> int:
    configure_logs()
    settings = WorkerSettings()
    load_plugins()
    engine = make_engine(DatabaseSettings().url)
    with RayCluster(settings) as cluster:
        dispatcher = Dispatcher(settings, engine, cluster)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: dispatcher.stop())
        dispatcher.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

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

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import catalog, claims
from db.catalog import PublishedDataset
from db.engine import make_engine, reading, retrying
from db.errors import DatabaseUnavailable
from db.settings import DatabaseSettings
from db.upgrades import upgrade
from search.datasets import DatasetEntry
from workers.datasets import DATASETS, DatasetError
from workers.driver_pool import Driver, DriverPool
from workers.heartbeat import EXIT_FENCED
from workers.logs import configure_logs
from workers.ray_cluster import RayCluster
from workers.settings import WorkerSettings
from workers.shares import quotas
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
        self._pool = DriverPool(settings, cluster.address)
        self._stopping = threading.Event()
        self._published_at = float("-inf")
        self._carried_at = float("-inf")
        self._slots = 1

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """Works until `stop`; a database that is away is waited for."""
        entries = [PublishedDataset(e.name, e.fingerprint, e.model_dump(mode="json")) for e in readable_datasets()]
        retrying(self._engine, lambda s: catalog.publish_datasets(s, entries, published_by=self.owner.split(":")[0]))
        log.info("dispatcher.ready", datasets=[entry.name for entry in entries])
        try:
            while not self._stopping.is_set():
                try:
                    self._tick()
                except DatabaseUnavailable as error:
                    log.warning("dispatcher.database_away", error=str(error))
                    self._stopping.wait(1.0)
                self._stopping.wait(TICK_SECONDS)
        finally:
            self._hand_back()  # whatever ended the loop: a local Ray ends with this process

    def _tick(self) -> None:
        self._reap()
        self._pool.keep_spare()
        if time.monotonic() - self._carried_at >= self._settings.lease_seconds / 4:
            self._carry_leases()
            self._carried_at = time.monotonic()
        if time.monotonic() - self._published_at >= PUBLISH_SECONDS:
            self._publish_nodes()
            self._published_at = time.monotonic()
        while len(self._drivers) < self._slots:
            search = retrying(
                self._engine,
                lambda s: claims.claim_next(s, self.owner, self._settings.lease_seconds, most_running=self._slots),
                attempts=2,
            )
            if search is None:
                break
            stale = self._drivers.pop(search.id, None)
            if stale is not None:  # it gave no sign of life for a whole lease
                log.error("driver.silent", search=search.id, attempt=stale.attempt, pid=stale.process.pid)
                stale.process.kill()
                stale.process.wait()
            self._share()
            self._start(search.id, search.attempt)

    def _carry_leases(self) -> None:
        """Renews the leases of drivers that have just been started; from then on they do it themselves."""
        young = [d for d in self._drivers.values() if time.monotonic() - d.started < START_SECONDS]

        def work(session: Session) -> None:
            for driver in young:
                claims.renew(session, driver.search_id, driver.attempt, self._settings.lease_seconds)

        if young:
            retrying(self._engine, work, attempts=2)

    def _publish_nodes(self) -> None:
        nodes = self._cluster.nodes()
        self._slots = max(1, int(sum(node["cpus"] for node in nodes)))
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
        """Gives every running search its share of the slots."""
        with reading(self._engine) as session:
            running = {search.id: search.priority for search in claims.running(session)}
        shares = quotas(self._slots, running)
        retrying(self._engine, lambda s: claims.set_quotas(s, shares), attempts=2)

    def _start(self, search_id: str, attempt: int) -> None:
        if attempt > self._settings.driver_attempts:
            error = {"kind": "driver", "message": f"{attempt - 1} drivers of this search have died; see the logs."}
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
            lambda session: claims.release(session, driver.search_id, driver.attempt, "queued"),
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
        self._reap()
        log.info("dispatcher.stopped")


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
    upgrade(engine)
    with RayCluster(settings) as cluster:
        dispatcher = Dispatcher(settings, engine, cluster)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: dispatcher.stop())
        dispatcher.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

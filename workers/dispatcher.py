"""Claims searches and runs a driver for each: `python -m workers.dispatcher`.

Any number of dispatchers may run: the claim is one statement. A driver renews its own lease, so a search survives the
dispatcher that started its driver; the next dispatcher on that machine adopts it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import claims
from db.claims import Held
from db.engine import make_engine, reading, retrying
from db.errors import DatabaseUnavailable
from db.models import Search
from db.settings import DatabaseSettings
from db.upgrades import upgrade
from workers.aftermath import Aftermath
from workers.claiming import Claimer, why_waiting
from workers.driver_pool import DriverPool, drivers_that_fit
from workers.janitor import Janitor
from workers.logs import configure_logs
from workers.processes import ProcessName
from workers.publishing import Housekeeping, NodePublisher
from workers.ray_cluster import RayCluster, RayUnreachableError, remove_stale_folders
from workers.ray_watch import RayLostError, RayWatch
from workers.scheduling import Scheduler
from workers.settings import WorkerSettings
from workers.shares import MOST_DEMANDED, Wish, demand, left_over, quotas, slots
from workers.storage.agreement import agree
from workers.storage.errors import StorageError
from workers.storage.identity import StoreIdentity
from workers.storage.node_check import NodeCheck
from workers.training.evaluators import load_plugins
from workers.watching import Watch

TICK_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""How often the running searches are read: shares, leases that have run out, drivers that nobody watches."""
DEMAND_SECONDS = 5.0
GRACE_SECONDS = 5.0
"""What drivers get to hand their searches back, beyond the time in which their trials may end an epoch."""
EXIT_RAY_LOST = 4
EXIT_NO_RAY = 5
EXIT_NO_STORE = 6

log = structlog.get_logger()


class Dispatcher:
    """One dispatcher process: claim, start, watch, share out, publish."""

    def __init__(self, settings: WorkerSettings, engine: Engine, cluster: RayCluster) -> None:
        process = ProcessName.own()
        self.owner = f"{process}@{cluster.name}"
        self._settings = settings
        self._engine = engine
        self._cluster = cluster
        self._pool = DriverPool(settings, cluster.address, tied=cluster.is_local)
        self._watch = Watch(engine, self._pool, self.owner, settings.lease_seconds)
        self._claimer = Claimer(engine, settings.lease_seconds)
        self._scheduler = Scheduler(engine)
        self._aftermath = Aftermath(engine, settings)
        self._publisher = NodePublisher(engine, self.owner, cluster.name, cluster.node)
        self._housekeeping = Housekeeping(engine, settings, process.host, self._publisher)
        self._ray: RayWatch | None = None
        self._store: StoreIdentity | None = None
        self._janitor: Janitor | None = None
        self._running: list[Held] = []
        self._shares: dict[str, int] = {}
        self._looked_at = self._carried_at = self._demanded_at = float("-inf")
        self._database_was_away = False
        self._patient_until = float("-inf")
        self._most_drivers = settings.max_drivers or drivers_that_fit()

    def run(self, stopping: threading.Event, hurry: threading.Event) -> None:
        """Works until `stopping` is set, then lets its drivers hand back, at once with `hurry`.

        A database that is away is waited for. Raises RayLostError when Ray has gone; its drivers have been ended then.
        Raises StorageError when the store cannot be used or is not the other dispatchers'.
        """
        self._wait_for_database(stopping, lambda: upgrade(self._engine))
        self._wait_for_database(stopping, self._agree_on_store)
        if self._store is None:
            return  # stopped before the database came back
        self._wait_for_database(stopping, lambda: log.info("dispatcher.ready", datasets=self._housekeeping.start()))
        self._janitor = Janitor(self._engine, self._settings, self._store, self.owner)
        self._janitor.start()
        self._aftermath.start()
        check = NodeCheck(self._store, self._cluster.node)
        ray = self._ray = RayWatch(self._cluster, self._settings.ray_patience, check)
        try:
            while not stopping.is_set():
                try:
                    self._tick(ray)
                except DatabaseUnavailable as error:
                    log.warning("dispatcher.database_away", error=str(error))
                    self._database_was_away = True
                    self._watch.starting = None
                    stopping.wait(1.0)
                stopping.wait(TICK_SECONDS)
        except RayLostError as error:
            log.error("ray.lost", problem=str(error), drivers=len(self._watch.drivers))
            self._keep_on_without_ray()
            raise
        finally:  # whatever ended the loop: a local Ray ends with this process
            self._close(hurry)

    def _agree_on_store(self) -> None:
        self._store = agree(self._engine, self._settings.storage_url, self.owner)

    def _wait_for_database(self, stopping: threading.Event, work: Callable[[], object]) -> None:
        """Repeats `work` until the database answers or the dispatcher is stopped."""
        while not stopping.is_set():
            try:
                work()
                return
            except DatabaseUnavailable as error:
                log.warning("dispatcher.database_away", error=str(error))
                stopping.wait(1.0)

    def _tick(self, ray: RayWatch) -> None:
        answers = ray.answers()
        if self._database_was_away:  # leases ran out while nobody could renew them, which says nothing of the drivers
            self._watch.carry_leases(all_of_them=True)
            self._database_was_away = False
            self._patient_until = time.monotonic() + self._settings.lease_seconds  # for the drivers of others
        if self._watch.reap():
            self._look(ray.nodes)
        if time.monotonic() - self._carried_at >= self._settings.lease_seconds / 4:
            self._watch.carry_leases()
            self._carried_at = time.monotonic()
        if answers:
            self._publisher.publish(ray.nodes)
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._look(ray.nodes)
            if answers:
                self._pool.keep_spare(self._share_of_one_more(ray.nodes))
                self._take_over(ray)
                self._claimer.explain(ray.nodes)
                self._ask_for_nodes(ray)
        self._scheduler.tick()
        if answers:
            self._claim(ray)

    def _look(self, nodes: Sequence[dict[str, object]]) -> None:
        """Reads the running searches; shares the slots among them, and compares their drivers with ours."""
        with reading(self._engine) as session:
            self._running = claims.running(session)
        self._watch.follow(self._running)
        self._share(nodes)
        self._looked_at = time.monotonic()

    def _share(self, nodes: Sequence[dict[str, object]]) -> None:
        """Gives every running search of this cluster its share of the slots that its trials find."""
        held = [held for held in self._ours() if not held.expired]
        shares = self._shares = quotas(nodes, {h.id: Wish.of(h.resources, h.priority) for h in held})
        changed = {h.id: shares[h.id] for h in held if shares[h.id] != h.quota}
        if changed:
            retrying(self._engine, lambda s: claims.set_quotas(s, changed), attempts=2)

    def _share_of_one_more(self, nodes: Sequence[dict[str, object]]) -> int:
        """Slots that a search would have which came now and asked for nothing in particular."""
        wishes = {held.id: Wish.of(held.resources, held.priority) for held in self._ours() if not held.expired}
        return quotas(nodes, {**wishes, "": Wish(cpus=1.0, gpus=0.0)})[""]

    def _ours(self) -> list[Held]:
        """Running searches that share slots with those of this dispatcher."""
        return [held for held in self._running if claims.cluster_of(held.owner) == self._cluster.name]

    def _take_over(self, ray: RayWatch) -> None:
        if time.monotonic() < self._patient_until or not any(held.expired for held in self._running):
            return
        while self._has_room_for_a_driver() and (search := self._claimer.take_over(self.owner)) is not None:
            log.warning("search.taken_over", search=search.id, attempt=search.attempt)
            self._start(search, ray)

    def _claim(self, ray: RayWatch) -> None:
        """Takes searches while there is room for one trial of each that runs and of the next one: one that runs
        without a slot would spend its hours waiting."""
        most = max(1, slots(ray.nodes, 1, 0))
        while True:
            running = self._wishes()
            if len(running) >= most or not self._has_room_for_a_driver():
                return
            search = self._claimer.next(self.owner, ray.nodes, left_over(ray.nodes, running), most)
            if search is None:
                return
            self._start(search, ray)

    def _wishes(self) -> list[Wish]:
        """What the living searches of this cluster ask for."""
        return [Wish.of(held.resources, held.priority) for held in self._ours() if not held.expired]

    def _has_room_for_a_driver(self) -> bool:
        return len(self._watch.drivers) < self._most_drivers

    def _ask_for_nodes(self, ray: RayWatch) -> None:
        """Tells the autoscaler, if there is one, what trials would take: quotas only share out what is there."""
        if self._settings.autoscale and time.monotonic() - self._demanded_at >= DEMAND_SECONDS:
            with reading(self._engine) as session:
                ray.demand = demand(claims.wanted(session, limit=MOST_DEMANDED))
            self._demanded_at = time.monotonic()

    def _start(self, search: Search, ray: RayWatch) -> None:
        search_id, attempt = search.id, search.attempt
        if search.deaths >= self._settings.driver_attempts:
            message = f"{search.deaths} drivers of this search have died without progress; see the dispatcher's logs."
            error = {"kind": "driver", "message": message}
            retrying(self._engine, lambda s: claims.release(s, search_id, attempt, "failed", error=error))
            log.error("search.given_up", search=search_id, attempt=attempt)
            return
        wish = Wish.of(search.spec["resources"], search.priority)
        # one that was taken over may have run on nodes that have gone, or on another cluster
        if not slots(left_over(ray.nodes, self._wishes()), wish.cpus, wish.gpus):
            log.warning("search.waits", search=search_id, why=why_waiting(search.spec["resources"], ray.nodes))
            retrying(self._engine, lambda s: claims.release(s, search_id, attempt, "queued"))
            return
        self._watch.starting = search_id
        self._look(ray.nodes)  # so that it starts with its share, and the others make room

        def register(driver: ProcessName) -> None:
            def work(session: Session) -> None:
                claims.register_driver(session, search_id, attempt, str(driver))

            retrying(self._engine, work, attempts=2)

        share = self._shares.get(search_id, 1)
        driver = self._pool.start(search_id, attempt, register, share)
        self._watch.add(driver)
        self._watch.starting = None
        log.info("driver.started", search=search_id, attempt=attempt, pid=driver.process.pid)

    def _keep_on_without_ray(self) -> None:
        """Drivers whose Ray has gone would hang for a minute: ends them, and gives their searches to whoever can."""
        try:
            self._watch.abandon("Ray has gone")
            if self._cluster.is_local:
                self._publisher.forget()
        except DatabaseUnavailable as error:  # the leases run out by themselves
            log.warning("dispatcher.database_away", error=str(error))

    def _close(self, hurry: threading.Event) -> None:
        grace = self._settings.drain_seconds + GRACE_SECONDS
        until = time.monotonic() + grace
        self._housekeeping.stop()
        self._aftermath.stop()
        if self._janitor is not None:
            self._janitor.stop()
        self._watch.hand_back(grace, hurry)
        remove_stale_folders()  # also what drivers of a dispatcher that was killed have left
        # a message that is on its way, and not noted as sent, would be sent again
        if not self._aftermath.join(0.0 if hurry.is_set() else until - time.monotonic()):
            log.warning("dispatcher.messages_left")
        self._pool.close()
        if self._ray is not None:
            self._ray.stop()
        if self._cluster.is_local:
            try:
                self._publisher.forget()
            except DatabaseUnavailable as error:
                log.warning("dispatcher.database_away", error=str(error))
        log.info("dispatcher.stopped")


def listen(stopping: threading.Event, hurry: threading.Event) -> None:
    """SIGTERM and SIGINT stop the dispatcher; a second one hurries. `ray.init` puts handlers of its own there."""

    def stop(*signal_and_frame: object) -> None:
        if stopping.is_set():
            hurry.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def main() -> int:
    os.umask(0o077)  # Ray writes its token readable for all otherwise, and logs are nobody else's business
    configure_logs()
    stopping, hurry = threading.Event(), threading.Event()
    listen(stopping, hurry)
    settings = WorkerSettings()
    load_plugins()
    engine = make_engine(DatabaseSettings().url)
    cluster = RayCluster(settings)
    try:
        if not cluster.connect(stopping):
            return 0
    except RayUnreachableError as error:
        log.error("dispatcher.no_ray", error=str(error))
        return EXIT_NO_RAY
    listen(stopping, hurry)
    try:
        Dispatcher(settings, engine, cluster).run(stopping, hurry)
    except StorageError as error:
        log.error("dispatcher.no_store", error=str(error))
        cluster.close()
        return EXIT_NO_STORE
    except RayLostError:
        engine.dispose()
        return _after_ray(cluster, stopping)
    cluster.close()
    return 0


def _after_ray(cluster: RayCluster, stopping: threading.Event) -> int:
    """Ends, or begins anew where the cluster may come back: within a process Ray cannot let go of a dead cluster."""
    if cluster.is_local:
        log.error("dispatcher.ends", why="Its local Ray has died. Start the dispatcher again (attune serve does).")
        cluster.end_at_once()
    elif not stopping.is_set():
        log.warning("dispatcher.restarts", why="It waits for the cluster to come back.")
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "workers.dispatcher"])
    sys.stderr.flush()
    os._exit(EXIT_RAY_LOST)  # without Ray's own clean-up, which waits a minute for a head that is gone


if __name__ == "__main__":
    raise SystemExit(main())

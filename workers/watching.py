"""The drivers that a dispatcher looks after: those it has started, and those that a dead dispatcher has left behind.

A driver renews its own lease. What a dispatcher adds: a search whose driver has died is queued again at once, not after
the lease; a driver that gives no sign of life is ended; and when the dispatcher is stopped, its drivers hand back.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import claims
from db.claims import Held
from db.engine import retrying
from db.errors import DatabaseUnavailable
from workers.driver_pool import Driver, DriverPool
from workers.heartbeat import EXIT_FENCED, EXIT_NO_DATABASE
from workers.processes import ProcessName, Watched
from workers.ray_cluster import remove_stale_folders
from workers.termination import EXIT_TERMINATED

START_SECONDS = 300.0
"""How long the dispatcher keeps the lease of a driver that is still starting (it imports Ray and torch first)."""
EXIT_SECONDS = 30.0
"""How long a driver may take to end after its search has been released."""
KILL_SECONDS = 5.0

log = structlog.get_logger()


class Watch:
    """The drivers of one dispatcher, by search."""

    def __init__(self, engine: Engine, pool: DriverPool, owner: str, lease_seconds: float) -> None:
        self.drivers: dict[str, Driver] = {}
        self._engine = engine
        self._pool = pool
        self._owner = owner
        self._lease = lease_seconds
        self._idle_since: dict[str, float] = {}
        self.starting: str | None = None
        """The search that is about to get a driver."""

    def add(self, driver: Driver) -> None:
        """Watches a driver from now on; one that had the same search gave no sign of life for a whole lease."""
        stale = self.drivers.pop(driver.search_id, None)
        if stale is not None:
            self._kill(stale, "silent")
        self.drivers[driver.search_id] = driver

    def reap(self) -> bool:
        """Queues the searches of drivers that have died again, at once. Whether any driver has ended."""
        ended = [driver for driver in self.drivers.values() if not driver.process.is_alive]
        for driver in ended:
            code = driver.process.code
            told = {"search": driver.search_id, "attempt": driver.attempt, "code": code, "log": str(driver.log_file)}
            if code in (0, EXIT_FENCED):
                log.info("driver.ended", **told)
            elif code in (EXIT_NO_DATABASE, EXIT_TERMINATED):
                log.warning("driver.left", **told)
                self._requeue(driver.search_id, driver.attempt, died=False)
            else:  # of an adopted one the code is unknown; if it has released its search, nothing is done here
                say = log.info if driver.adopted else log.error
                say("driver.gone" if driver.adopted else "driver.died", **told)
                self._requeue(driver.search_id, driver.attempt, died=True)
            self._forget(driver)
        if ended:
            remove_stale_folders()  # one that was killed has left Tune's experiment behind
        return bool(ended)

    def carry_leases(self, *, all_of_them: bool = False) -> None:
        """Renews leases for drivers that are starting; from then on they do it themselves. `all_of_them`: also for
        the others, after a time in which nobody could renew any."""
        now = time.monotonic()
        starting = [
            driver
            for driver in self.drivers.values()
            if driver.process.is_alive and (all_of_them or (not driver.beats and now - driver.started < START_SECONDS))
        ]

        def work(session: Session) -> None:
            for driver in starting:
                claims.renew(session, driver.search_id, driver.attempt, self._lease)

        if starting:
            retrying(self._engine, work, attempts=2)

    def follow(self, running: Sequence[Held]) -> None:
        """Compares the drivers with what the database says: adopts orphans of this machine, ends drivers that have
        lost their search or do not end although they have released it."""
        by_id = {held.id: held for held in running}
        for held in running:
            if held.owner != self._owner:
                self._adopt_if_orphaned(held)
            elif held.id not in self.drivers and held.id != self.starting:
                log.warning(
                    "search.unattended", search=held.id, attempt=held.attempt
                )  # the database went away meanwhile
                self._requeue(held.id, held.attempt, died=False)
        for driver in list(self.drivers.values()):
            now = by_id.get(driver.search_id)
            if now is not None and now.attempt == driver.attempt:
                self._idle_since.pop(driver.search_id, None)
                driver.beats = now.beats
            elif now is not None and now.attempt > driver.attempt:
                self._kill(driver, "superseded")
                self._forget(driver)
            elif time.monotonic() - self._idle_since.setdefault(driver.search_id, time.monotonic()) > EXIT_SECONDS:
                self._kill(driver, "lingering")

    def _adopt_if_orphaned(self, held: Held) -> None:
        """Takes over from a dispatcher of this machine that has died; others are left to their dispatchers, or to
        their lease when those are elsewhere."""
        dispatcher, driver = ProcessName.parse(held.owner.partition("@")[0]), ProcessName.parse(held.driver)
        if dispatcher is None or not dispatcher.is_here or dispatcher.is_alive:
            return
        if driver is not None and not driver.is_here:
            return
        taken = retrying(
            self._engine,
            lambda s: claims.adopt(s, held.id, held.attempt, from_owner=held.owner, owner=self._owner),
            attempts=2,
        )
        if not taken:
            return  # by another dispatcher of this machine
        told = {"search": held.id, "attempt": held.attempt, "driver": held.driver, "from_owner": held.owner}
        if driver is not None and driver.is_alive:
            log.info("driver.adopted", **told)
            log_file = self._pool.log_file(held.id)
            self.add(Driver(held.id, held.attempt, Watched(driver), log_file, adopted=True, beats=held.beats))
        else:
            log.warning("driver.found_dead", **told)
            self._requeue(held.id, held.attempt, died=driver is not None)

    def abandon(self, because: str) -> None:
        """Ends all drivers at once and queues their searches again; it is not the drivers' fault."""
        for driver in list(self.drivers.values()):
            self._kill(driver, because)
            self._requeue(driver.search_id, driver.attempt, died=False)
            self._forget(driver)

    def hand_back(self, seconds: float, hurry: threading.Event) -> None:
        """Lets the drivers put their searches back into the queue; ends those that take longer than `seconds`, and
        all when `hurry` is set."""
        for driver in self.drivers.values():
            driver.process.send(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while any(d.process.is_alive for d in self.drivers.values()) and time.monotonic() < deadline:
            if hurry.wait(0.05):
                break
        for driver in list(self.drivers.values()):
            if driver.process.is_alive:
                self._kill(driver, "hurried" if hurry.is_set() else "slow to stop")
        try:
            for driver in list(self.drivers.values()):
                self._requeue(driver.search_id, driver.attempt, died=False)
                self._forget(driver)
        except DatabaseUnavailable as error:  # the leases run out by themselves
            log.warning("dispatcher.database_away", error=str(error))

    def _requeue(self, search_id: str, attempt: int, *, died: bool) -> None:
        """Puts the search back into the queue if this attempt still holds it."""
        retrying(self._engine, lambda s: claims.release(s, search_id, attempt, "queued", died=died), attempts=2)

    def _kill(self, driver: Driver, because: str) -> None:
        log.error("driver.killed", search=driver.search_id, attempt=driver.attempt, pid=driver.process.pid, why=because)
        driver.process.send(signal.SIGKILL)
        if not driver.process.wait(KILL_SECONDS):  # it hangs in the kernel, such as on a lost disk
            log.error("driver.unkillable", search=driver.search_id, pid=driver.process.pid)

    def _forget(self, driver: Driver) -> None:
        self._idle_since.pop(driver.search_id, None)
        if self.drivers.get(driver.search_id) is driver:
            del self.drivers[driver.search_id]

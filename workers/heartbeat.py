"""The thread that renews a driver's lease, and through which quota, pause and cancel reach its run."""

from __future__ import annotations

import os
import signal
import sys
import threading

import structlog

from db.errors import DatabaseUnavailable
from db.models import Search
from workers.ledger import Ledger
from workers.run import SearchRun, Stop

EXIT_FENCED = 3
"""Another attempt has taken the search over."""

log = structlog.get_logger()


class Heartbeat:
    """Beats from `start` to `stop`; the run may be attached later."""

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
        signal.signal(signal.SIGTERM, self._hand_back)

    def _hand_back(self, *signal_and_frame: object) -> None:
        """Leaves the work to the thread: what a handler interrupts may hold the lock that logging or Ray needs."""
        self._stop = self._stop or Stop.HAND_BACK

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
        try:
            self._beat_until_ended()
        except Exception:  # without a heartbeat the search is taken over while this driver goes on
            log.exception("driver.heartbeat_failed")
            os._exit(1)

    def _beat_until_ended(self) -> None:
        interval = min(1.0, self._lease / 4)
        while not self._ended:
            if self._stop is not None:
                self._stop_run(self._stop)
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

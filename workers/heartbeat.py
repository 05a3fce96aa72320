"""The thread that renews a driver's lease, and through which quota, pause and cancel reach its run."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time

import structlog

from db.errors import DatabaseUnavailable
from db.models import Search
from workers.budget import ActiveTime
from workers.ledger import Ledger
from workers.run import SearchRun
from workers.stopping import Stop
from workers.termination import Termination

EXIT_FENCED = 3
"""Another attempt has taken the search over."""
EXIT_NO_DATABASE = 4
"""The database was away for longer than a driver waits; the search's lease runs out. No fault of the search."""
LOG_AWAY_SECONDS = 30.0

log = structlog.get_logger()


class Heartbeat:
    """Beats from `start` to `stop`; the run may be attached later.

    Until then nothing of the search is under way, so a driver that is asked to stop hands the search back from here.
    active: how long drivers have worked on the search. termination: whether SIGTERM has come.
    """

    def __init__(self, ledger: Ledger, lease_seconds: float, active: ActiveTime, termination: Termination) -> None:
        self._ledger = ledger
        self._lease = lease_seconds
        self._active = active
        self._termination = termination
        self._run: SearchRun | None = None
        self._attaching = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._away_since: float | None = None
        self._logged_at = 0.0
        context = contextvars.copy_context()  # so that its log lines name the search
        self._thread = threading.Thread(target=context.run, args=(self._beat,), name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def attach(self, run: SearchRun) -> None:
        """From now on the run is told what users ask for."""
        with self._attaching:
            self._run = run

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
            if self._termination.asked:
                self._halt(Stop.HAND_BACK)
            self._beat_once()
            self._wake.wait(interval)

    def _beat_once(self) -> None:
        run = self._run
        try:
            search = self._ledger.heartbeat(
                self._lease, self._active.seconds, None if run is None else run.seconds_left
            )
        except DatabaseUnavailable as error:
            self._note_away(error)
            return
        self._away_since = None
        if search is not None:
            self._obey(search)
        elif not self._ended:
            log.warning("driver.lost_lease")
            self._die()

    def _note_away(self, error: DatabaseUnavailable) -> None:
        """The run waits for the database on its own; here it is only said, now and then."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since, self._logged_at = now, float("-inf")
        if now - self._logged_at >= LOG_AWAY_SECONDS:
            self._logged_at = now
            log.warning("driver.database_away", error=str(error), seconds=round(now - self._away_since, 1))

    def _obey(self, search: Search) -> None:
        if self._run is not None:
            self._run.set_quota(search.quota)
        if search.command == "cancel":
            self._halt(Stop.CANCEL)
        elif search.command == "pause":
            self._halt(Stop.PAUSE)

    def _halt(self, stop: Stop) -> None:
        with self._attaching:
            run = self._run
            if run is None:
                self._leave(stop)  # nothing else goes on while the lock is held
                return
        if not run.halt(stop):
            return
        log.info("driver.stopping", because=stop.name.lower(), live=len(run.live))
        if not stop.drains:
            from workers.tune import kill_live_trials

            kill_live_trials()

    def _leave(self, stop: Stop) -> None:
        """Releases the search in the middle of getting ready, which may take minutes for a large space."""
        log.info("driver.stopping", because=stop.name.lower(), live=0)
        released = self._ledger.release(stop.value, active_seconds=self._active.seconds)
        sys.stderr.flush()
        os._exit(0 if released else EXIT_FENCED)

    def _die(self) -> None:
        """A fenced driver must not write; its trials end with it, as Ray ends a job's workers with its driver."""
        sys.stderr.flush()
        os._exit(EXIT_FENCED)

"""Reads and writes that wait for a database that is away, up to a limit: an outage must not end a search."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.engine import reading, writing
from db.errors import DatabaseUnavailable

T = TypeVar("T")

OUTAGE_SECONDS = 300.0
FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0

log = structlog.get_logger()


class Patience:
    """Repeats whole transactions while the database is away, locked or full, for `seconds` at most.

    What it is given may run more than once, also after a commit whose acknowledgement was lost. DatabaseUnavailable is
    raised at the end of the patience. away_at: when the database was last seen to be away, in monotonic seconds.
    """

    def __init__(self, engine: Engine, seconds: float = OUTAGE_SECONDS) -> None:
        self._engine = engine
        self.away_at = float("-inf")
        self._seconds = seconds
        self._spread = random.Random()

    def read(self, work: Callable[[Session], T]) -> T:
        return self.repeat(lambda: self._once(reading, work))

    def write(self, work: Callable[[Session], T]) -> T:
        return self.repeat(lambda: self._once(writing, work))

    def repeat(self, work: Callable[[], T]) -> T:
        """For what opens its transactions itself."""
        began, delay = time.monotonic(), 0.0
        while True:
            try:
                result = work()
            except DatabaseUnavailable as error:
                self.away_at = time.monotonic()
                if time.monotonic() - began >= self._seconds:
                    raise
                if not delay:
                    log.warning("database.away", error=str(error), patience=self._seconds)
                delay = min(LONGEST_DELAY, 2 * delay or FIRST_DELAY)
                time.sleep(delay * (1 - self._spread.random() / 2))
                continue
            if delay:
                log.info("database.back", seconds=round(time.monotonic() - began, 3))
            return result

    def _once(self, opened: Callable[[Engine], AbstractContextManager[Session]], work: Callable[[Session], T]) -> T:
        with opened(self._engine) as session:
            return work(session)

"""Whether the database has room, for the readiness probe, which may come every second."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Engine

from db.errors import DatabaseUnavailable
from db.room import check_room

FRESH_SECONDS = 5.0


class Room:
    """Tries a write, and believes a success for a few seconds."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._until = float("-inf")

    def check(self) -> None:
        """Raises DatabaseUnavailable when nothing can be stored. A database that is only busy passes."""
        if self._clock() < self._until:
            return
        try:
            check_room(self._engine)
        except DatabaseUnavailable as error:
            if not error.transient:
                raise
        self._until = self._clock() + FRESH_SECONDS

    def doubt(self) -> None:
        """A write has failed: the next check tries again."""
        self._until = float("-inf")

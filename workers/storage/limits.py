"""How large the store may get and how long files are kept, when dispatchers are set differently: the strictest counts.

Every janitor writes down what it is set to, and works by the lowest of all that are there. Otherwise each would undo in
its round what the other has told the trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import installation
from db.engine import now, retrying
from workers.processes import ProcessName
from workers.settings import WorkerSettings

PREFIX = "janitor/"
LATE_SECONDS = 600.0
"""How much later than after three pauses a janitor may come round, as a round on a large store takes a while."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Limits:
    """What one dispatcher is set to. owner: its name. storage_gb: 10⁹ bytes, None for no limit."""

    owner: str
    keep_days: float
    storage_gb: float | None


class Agreement:
    """What the janitors of an installation go by, as one of them sees it. owner: its dispatcher's name."""

    def __init__(self, engine: Engine, settings: WorkerSettings, owner: str) -> None:
        self._engine = engine
        self._own = Limits(owner, settings.keep_days, settings.storage_gb)
        self._alive_seconds = 3 * settings.janitor_seconds + LATE_SECONDS
        self._key = PREFIX + hashlib.sha256(owner.encode()).hexdigest()[:32]
        self._told: list[tuple[str, float | None, float | None]] = []

    def limits(self) -> Limits:
        """The strictest of all, in the name of this one; told in the log when they are not its own.

        Raises DatabaseUnavailable.
        """
        known = retrying(self._engine, self._exchange)
        days = min(known, key=lambda one: (one.keep_days, one.owner))
        limited = [one for one in known if one.storage_gb is not None]
        room = min(limited, key=lambda one: (one.storage_gb, one.owner), default=self._own)
        self._tell(days, room)
        return Limits(self._own.owner, days.keep_days, room.storage_gb)

    def leave(self) -> None:
        """The dispatcher ends: what it was set to does not count any more. Raises DatabaseUnavailable."""
        retrying(self._engine, lambda session: installation.remove(session, self._key))

    def _exchange(self, session: Session) -> Sequence[Limits]:
        own = {"owner": self._own.owner, "keep_days": self._own.keep_days, "storage_gb": self._own.storage_gb}
        installation.put(session, self._key, own | {"alive_seconds": self._alive_seconds})
        moment = now(session)
        found = []
        for row in installation.starting_with(session, PREFIX):
            owner = str(row.value["owner"])
            silent = (moment - row.updated_at).total_seconds()
            if row.key != self._key and (silent > row.value["alive_seconds"] or _has_ended(owner)):
                installation.remove(session, row.key)
            else:
                found.append(Limits(owner, row.value["keep_days"], row.value["storage_gb"]))
        return found

    def _tell(self, days: Limits, room: Limits) -> None:
        told = [
            (setting, here, counts, by)
            for setting, here, counts, by in (
                ("ATTUNE_KEEP_DAYS", self._own.keep_days, days.keep_days, days.owner),
                ("ATTUNE_STORAGE_GB", self._own.storage_gb, room.storage_gb, room.owner),
            )
            if here != counts
        ]
        if (differences := [one[:3] for one in told]) == self._told:
            return
        self._told = differences
        for setting, here, counts, by in told:
            log.warning("storage.settings_differ", setting=setting, here=here, counts=counts, set_by=by)


def _has_ended(owner: str) -> bool:
    """Whether the dispatcher of that name was of this machine and is no more."""
    process = ProcessName.parse(owner.partition("@")[0])
    return process is not None and process.is_here and not process.is_alive

"""The numbers of a search's finished trials as arrays, kept between requests: 100,000 trials are read once.

A search's events say which trials have changed since, so a request reads only those. Everything kept belongs to one
state of the database, that of the session which read it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from sqlalchemy import Pool, select
from sqlalchemy.orm import Session

from db import bulk
from db.metrics import metric_expression
from db.models import RESULT_STATUSES, Event, Search, Trial

SEARCHED = ("controls", "explore")
MOST_KEPT = 32
"""Pairs of a search and its metrics; one of 100,000 trials takes 3 MB."""
MOST_CHANGES = 2_000
"""Events since the last look beyond which everything is read again."""
CHANGING = ("trial.started", "trial.finished")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Columns:
    """Finished and reused trials of the search proper that have every metric asked for, by their numbers.

    event: the search's last one that is in here. numbers: n. values: n × m, in the metrics' units.
    """

    event: int
    numbers: Ints
    values: Floats


class _Kept:
    """The latest columns of a database, least recently used first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[Key, Columns] = OrderedDict()

    def get(self, key: Key) -> Columns | None:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def put(self, key: Key, columns: Columns) -> None:
        with self._lock:
            known = self._found.get(key)
            if known is None or known.event <= columns.event:
                self._found[key] = columns
                self._found.move_to_end(key)
            while len(self._found) > MOST_KEPT:
                self._found.popitem(last=False)


_KEPT: WeakKeyDictionary[Pool, _Kept] = WeakKeyDictionary()
_LOCK = threading.Lock()


def columns(session: Session, search: Search, metrics: Sequence[str]) -> Columns:
    """The search's columns as `session` sees them."""
    kept = _kept(session)
    key = (search.id, tuple(metrics))
    known = kept.get(key)
    if known is not None and known.event == search.event_seq:
        return known
    changed = None if known is None or known.event > search.event_seq else _changed(session, search, known.event)
    if known is None or changed is None:
        found = _read(session, search, metrics)
    else:
        fresh = _read(session, search, metrics, changed)
        stay = ~np.isin(known.numbers, _numbers(session, changed)) if changed else np.ones(len(known.numbers), np.bool_)
        numbers = np.concatenate([known.numbers[stay], fresh.numbers])
        order = np.argsort(numbers, kind="stable")
        values = np.concatenate([known.values[stay], fresh.values])
        found = Columns(search.event_seq, numbers[order], values[order])
    kept.put(key, found)
    return found


def _kept(session: Session) -> _Kept:
    pool: Pool = session.get_bind().engine.pool
    with _LOCK:
        return _KEPT.setdefault(pool, _Kept())


def _changed(session: Session, search: Search, since: int) -> list[str] | None:
    """Ids of the trials that events above `since` tell of; None when there are too many."""
    if search.event_seq - since > MOST_CHANGES:
        return None
    statement = select(Event.data).where(Event.search_id == search.id, Event.seq > since, Event.kind.in_(CHANGING))
    return list(dict.fromkeys(data["trial_id"] for data in session.scalars(statement)))


def _numbers(session: Session, trial_ids: Sequence[str]) -> Ints:
    found: list[int] = []
    for start in range(0, len(trial_ids), 500):
        found += session.scalars(select(Trial.number).where(Trial.id.in_(trial_ids[start : start + 500])))
    return np.asarray(found, dtype=np.int64)


def _read(session: Session, search: Search, metrics: Sequence[str], trial_ids: Sequence[str] | None = None) -> Columns:
    """All of the search's trials, or those of `trial_ids`."""
    wanted = [metric_expression(name) for name in metrics]
    statement = select(Trial.number, *wanted).where(
        Trial.search_id == search.id, Trial.status.in_(RESULT_STATUSES), Trial.phase.in_(SEARCHED)
    )
    statement = statement.where(*(metric.is_not(None) for metric in wanted)).order_by(Trial.number)
    if trial_ids is None:
        table = bulk.numbers(session, statement)
    else:
        parts = [trial_ids[start : start + 500] for start in range(0, len(trial_ids), 500)]
        found = [bulk.numbers(session, statement.where(Trial.id.in_(part))) for part in parts]
        table = np.concatenate([np.empty((0, 1 + len(wanted))), *found])
        table = table[np.argsort(table[:, 0], kind="stable")]
    return Columns(search.event_seq, table[:, 0].astype(np.int64), table[:, 1:])

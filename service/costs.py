"""Costs of placements for the API: kept in SQL per site, in memory for the life of the process, counted by torch.

Torch is loaded by the first site that nobody has counted yet, in the thread that asks.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from db import catalog
from db.engine import reading, retrying
from search.cost import Cost
from search.plan import SearchPlan
from search.space_cost import SpaceCosts


class CostCache:
    """A `search.cost.CostStore` over the table of site costs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Cost] = {}
        self._fresh: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def of(self, plan: SearchPlan) -> SpaceCosts:
        """The costs of every placement of a request. Raises DatabaseUnavailable."""
        with self.counting() as store:
            return plan.costs(store)

    @contextmanager
    def counting(self) -> Iterator[CostCache]:
        """The store, for one request at a time; what is new is written at the end, in one transaction."""
        with self._lock:
            yield self
            fresh, self._fresh = self._fresh, {}
            if fresh:
                retrying(self._engine, lambda session: catalog.put_costs(session, fresh))

    def get(self, key: str) -> Cost | None:
        if key not in self._known:
            digest = _digest(key)
            with reading(self._engine) as session:
                found = catalog.get_costs(session, [digest])
            if digest in found:
                self._known[key] = Cost(*found[digest])
        return self._known.get(key)

    def put(self, key: str, cost: Cost) -> None:
        self._known[key] = cost
        self._fresh[_digest(key)] = (cost.params, cost.macs)


def _digest(key: str) -> str:
    """Keys are JSON of any length and the column is short; the workers name them so too."""
    return hashlib.sha256(key.encode()).hexdigest()

"""Counted costs kept in SQL, so that no process counts what another has counted."""

from __future__ import annotations

import hashlib

from sqlalchemy import Engine

from db import catalog
from db.engine import reading, retrying
from search.cost import Cost


class SqlCostStore:
    """A CostStore over the table of site costs; new counts are written by `flush`, in one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Cost] = {}
        self._new: dict[str, Cost] = {}

    def get(self, key: str) -> Cost | None:
        name = _name(key)
        if name not in self._known:
            with reading(self._engine) as session:
                found = catalog.get_costs(session, [name])
            self._known |= {n: Cost(params, macs) for n, (params, macs) in found.items()}
        return self._known.get(name)

    def put(self, key: str, cost: Cost) -> None:
        self._known[_name(key)] = self._new[_name(key)] = cost

    def flush(self) -> None:
        rows = {name: (cost.params, cost.macs) for name, cost in self._new.items()}
        if rows:
            retrying(self._engine, lambda session: catalog.put_costs(session, rows))
        self._new.clear()


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()

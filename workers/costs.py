"""Counted costs kept in SQL, so that no process counts what another has counted."""

from __future__ import annotations

import hashlib

from sqlalchemy import Engine

from db import catalog
from search.cost import Cost
from workers.patience import Patience


class SqlCostStore:
    """A CostStore over the table of site costs; new counts are written by `flush`, in one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._database = Patience(engine)
        self._known: dict[str, Cost] = {}
        self._new: dict[str, Cost] = {}

    def get(self, key: str) -> Cost | None:
        name = _name(key)
        if name not in self._known:
            found = self._database.read(lambda session: catalog.get_costs(session, [name]))
            self._known |= {n: Cost(params, macs) for n, (params, macs) in found.items()}
        return self._known.get(name)

    def put(self, key: str, cost: Cost) -> None:
        self._known[_name(key)] = self._new[_name(key)] = cost

    def flush(self) -> None:
        rows = {name: (cost.params, cost.macs) for name, cost in self._new.items()}
        if rows:
            self._database.write(lambda session: catalog.put_costs(session, rows))
        self._new.clear()


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()

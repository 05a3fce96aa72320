"""Which search a dispatcher takes next, and why others wait."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import claims, searches
from db.claims import Waiting
from db.engine import reading, retrying
from db.models import Search
from workers.shares import Node, Wish, slots

PAGE = 50
"""Searches looked at in one go. The head of the queue is looked at in every tick, so this is kept cheap."""
FULL_LOOK_SECONDS = 2.0
"""Between two looks at the whole queue, when nothing at its head can run."""


class Claimer:
    """Takes searches from the queue, in its order, passing over those whose trials fit on no node."""

    def __init__(self, engine: Engine, lease_seconds: float) -> None:
        self._engine = engine
        self._lease = lease_seconds
        self._full_look_at = float("-inf")

    def next(self, owner: str, nodes: Sequence[Node], most_running: int) -> Search | None:
        """The next search that fits on `nodes`, claimed; None when there is none or `most_running` are running."""
        offset = 0
        while True:
            with reading(self._engine) as session:
                page = claims.waiting(session, limit=PAGE, offset=offset)
            fitting = [item.id for item in page if _fits(nodes, item.resources)]
            self._tell(page, set(fitting))
            if fitting:  # the first few: somebody else may be claiming the first just now
                return self._claim(owner, fitting[:5], most_running)
            if len(page) < PAGE or (offset == 0 and time.monotonic() - self._full_look_at < FULL_LOOK_SECONDS):
                return None
            self._full_look_at = time.monotonic()
            offset += PAGE

    def take_over(self, owner: str) -> Search | None:
        """A search whose driver has given no sign of life for a whole lease, claimed."""
        return retrying(self._engine, lambda s: claims.take_over(s, owner, self._lease), attempts=2)

    def _claim(self, owner: str, among: Sequence[str], most_running: int) -> Search | None:
        def work(session: Session) -> Search | None:
            return claims.claim_next(session, owner, self._lease, most_running=most_running, among=among)

        return retrying(self._engine, work, attempts=2)

    def _tell(self, page: Sequence[Waiting], fitting: set[str]) -> None:
        """Says why searches wait, where that is not said yet."""
        news = {
            item.id: reason
            for item in page
            if (reason := None if item.id in fitting else why_waiting(item.resources)) != item.reason
        }

        def work(session: Session) -> None:
            for search_id, reason in sorted(news.items()):
                searches.set_waiting_reason(session, search_id, reason)

        if news:
            retrying(self._engine, work, attempts=2)


def _fits(nodes: Sequence[Node], resources: Mapping[str, Any]) -> bool:
    wish = Wish.of(resources, 0)
    return slots(nodes, wish.cpus, wish.gpus) > 0


def why_waiting(resources: Mapping[str, Any]) -> str:
    cpus, gpus = float(resources["cpus"]), float(resources["gpus"])
    return f"No node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for a trial."

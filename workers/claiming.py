"""Which search a dispatcher takes next, and why others wait."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import claims, searches
from db.engine import reading, retrying
from db.models import Search
from workers.shares import EPSILON, Node, slots, usable

CANDIDATES = 5
"""Searches to choose from: others may be claiming the first one just now."""
LOOKED_AT = 100
"""Searches of the queue that are held against what is left of the nodes."""
EXPLAINED = 100
"""Searches that are told at once why they wait."""
EXPLAIN_SECONDS = 2.0
HELD_SECONDS = 1.0
"""Waiting longer for a transaction to begin means that somebody else holds the database."""
SHARE_OF_TIME = 0.05
"""Of the time, at most this goes into looking in vain through a long queue of which nothing fits."""


class Claimer:
    """Takes searches from the queue, in its order, passing over those whose trials fit on no node."""

    def __init__(self, engine: Engine, lease_seconds: float) -> None:
        self._engine = engine
        self._lease = lease_seconds
        self._look_at = self._explain_at = float("-inf")

    def next(self, owner: str, nodes: Sequence[Node], left: Sequence[Node], most_running: int) -> Search | None:
        """The next search that fits on what is `left` of the nodes, claimed; None when there is none or `most_running`
        are running."""
        began = time.monotonic()
        if began < self._look_at:
            return None
        with reading(self._engine) as session:
            queue = claims.fitting(session, room(nodes), limit=LOOKED_AT)
        candidates = startable(queue, left)[:CANDIDATES]
        if not candidates:
            self._look_at = _not_before(began)
            return None

        def work(session: Session) -> Search | None:
            return claims.claim_next(session, owner, self._lease, most_running=most_running, among=candidates)

        return retrying(self._engine, work, attempts=2)

    def take_over(self, owner: str) -> Search | None:
        """A search whose driver has given no sign of life for a whole lease, claimed.

        None when the database kept us waiting: it may have kept its driver waiting too, which gets its chance first.
        """
        began = time.monotonic()

        def work(session: Session) -> Search | None:
            session.connection()  # the transaction begins here
            waited = time.monotonic() - began
            return claims.take_over(session, owner, self._lease) if waited < HELD_SECONDS else None

        return retrying(self._engine, work, attempts=2)

    def explain(self, nodes: Sequence[Node]) -> None:
        """Says why searches wait, where that is due and not said yet."""
        began = time.monotonic()
        if began < self._explain_at:
            return
        with reading(self._engine) as session:
            unclear = claims.to_explain(session, room(nodes), limit=EXPLAINED)

        def work(session: Session) -> None:
            for item in sorted(unclear, key=lambda item: item.id):
                searches.set_waiting_reason(session, item.id, None if item.fits else why_waiting(item.resources, nodes))

        if unclear:
            retrying(self._engine, work, attempts=2)
        self._explain_at = max(began + EXPLAIN_SECONDS, _not_before(began))


def startable(queue: Sequence[tuple[str, Mapping[str, Any]]], left: Sequence[Node]) -> list[str]:
    """Those of the queue of which a trial fits on what is left of the nodes, without passing over one that waits for
    the same: small searches would keep a large one waiting for ever. One that lacks a GPU only holds back those that
    want one too.
    """
    found, gpus_wanted = [], False
    for search_id, resources in queue:
        cpus, gpus = float(resources["cpus"]), float(resources["gpus"])
        if slots(left, cpus, gpus) and not (gpus and gpus_wanted):
            found.append(search_id)
        elif gpus and slots(left, cpus, 0):
            gpus_wanted = True
        else:
            break
    return found


def _not_before(began: float) -> float:
    """When something that has begun then, and has just ended, may be done again."""
    return began + (time.monotonic() - began) / SHARE_OF_TIME


def room(nodes: Sequence[Node]) -> list[tuple[float, float]]:
    """CPUs and GPUs of the nodes that offer more of one of them than any other does."""
    offers = {(node["cpus"] + EPSILON, node["gpus"] + EPSILON) for node in usable(nodes)}
    return sorted(o for o in offers if not any(p != o and p[0] >= o[0] and p[1] >= o[1] for p in offers))


def why_waiting(resources: Mapping[str, Any], nodes: Sequence[Node]) -> str:
    """Why a search whose trials find no room on these nodes waits."""
    cpus, gpus = float(resources["cpus"]), float(resources["gpus"])
    troubled = [node for node in nodes if node.get("storage_problem")]
    if slots([{**node, "storage_problem": None} for node in troubled], cpus, gpus):
        return f"The nodes with {cpus:g} CPUs and {gpus:g} GPUs for a trial do not see the store of checkpoints."
    return f"No node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for a trial."

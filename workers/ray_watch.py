"""A thread that asks Ray for its nodes, so that nobody else has to wait while Ray does not answer."""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog

from workers.ray_cluster import RayCluster
from workers.storage.node_check import NodeCheck

POLL_SECONDS = 1.0
AWAY_SECONDS = 3.0
"""Without an answer for so long, nodes count as unknown and no search is started."""

log = structlog.get_logger()


class RayLostError(Exception):
    """Ray has gone, and what ran on it; the message says what happened."""


class RayWatch:
    """The nodes of the cluster as of a second ago, marked where they do not see the store. Reads them once in the
    constructor.

    demand: what trials would take if there were nodes enough, for the autoscaler; None: nobody is to be told.
    """

    def __init__(self, cluster: RayCluster, patience: float, check: NodeCheck) -> None:
        self._cluster = cluster
        self._patience = patience
        self._check = check
        self._nodes = check.marked(cluster.nodes())
        self._error: str | None = None
        self._answered = time.monotonic()
        self._ended = threading.Event()
        self._said_away = False
        self.demand: list[dict[str, float]] | None = None
        self._demanded: list[dict[str, float]] | None = None
        threading.Thread(target=self._poll, name="ray-watch", daemon=True).start()

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The living nodes, as `RayCluster.nodes` describes them; see `NodeCheck` for `storage_problem`."""
        return self._nodes

    def answers(self) -> bool:
        """Whether Ray has said something lately. Raises RayLostError when there is no hope that it will."""
        if (broken := self._cluster.broken()) is not None:
            raise RayLostError(f"The local Ray is gone. {broken}")
        if self._cluster.node not in [node["id"] for node in self._nodes]:
            raise RayLostError("This machine's Ray node has left the cluster or died.")
        silent = time.monotonic() - self._answered
        if silent > self._patience:
            raise RayLostError(
                f"Ray's head has not answered for {silent:.0f} s ({self._error or 'no error, no answer'})."
            )
        away = silent > AWAY_SECONDS
        if away != self._said_away:
            self._said_away = away
            log.warning("ray.away" if away else "ray.back", address=self._cluster.address, error=self._error)
        return not away

    def stop(self) -> None:
        self._ended.set()

    def _poll(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            try:
                self._nodes = self._check.marked(self._cluster.nodes())
                self._answered = time.monotonic()
                self._error = None
                if self.demand != self._demanded:
                    self._demanded = self.demand
                    self._cluster.ask_for(self._demanded or [])
            except Exception as error:  # noqa: BLE001 - whatever Ray raises: the dispatcher decides by the silence
                self._error = f"{type(error).__name__}: {error}"[:300]

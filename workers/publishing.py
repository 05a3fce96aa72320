"""What a dispatcher tells the service: nodes, data sets, initial weights; and the logs it keeps small."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import Engine

from db import catalog
from db.catalog import PublishedDataset
from db.engine import retrying
from db.errors import DatabaseUnavailable
from search.datasets import UnavailableDataset
from workers.datasets.checking import published
from workers.logs import keep_logs_small
from workers.settings import WorkerSettings
from workers.weights import readable_weights

PUBLISH_SECONDS = 5.0
REREAD_SECONDS = 60.0
FIRST_READING = 2**30
"""Bytes of a new data set that a dispatcher reads before it is ready."""
FIRST_PAUSE = 1.0
FORGET_SECONDS = 600.0
"""After so long, a node goes of which nobody speaks any more: its whole cluster has gone."""

log = structlog.get_logger()


class NodePublisher:
    """Writes the cluster's nodes when they change, and every few seconds as a sign of life."""

    def __init__(self, engine: Engine, owner: str, cluster: str, home_node: str) -> None:
        self._engine = engine
        self._owner = owner
        self._cluster = cluster
        self._home_node = home_node
        self._last: list[dict[str, Any]] | None = None
        self._published_at = float("-inf")
        self.weights: dict[str, str] = {}
        self.unavailable_datasets: list[dict[str, Any]] = []

    def publish(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Makes the catalog's nodes of this cluster `nodes`, if that is due."""
        documents = [self._document(node) for node in nodes]
        if documents == self._last and time.monotonic() - self._published_at < PUBLISH_SECONDS:
            return
        by_id = {document["id"]: document for document in documents}
        retrying(
            self._engine,
            lambda s: catalog.publish_nodes(s, self._cluster, by_id, forget_after_seconds=FORGET_SECONDS),
            attempts=2,
        )
        if self._last is not None and [d["id"] for d in self._last] != list(by_id):
            log.info("cluster.changed", nodes=sorted(node["host"] for node in nodes))
        self._last, self._published_at = documents, time.monotonic()

    def forget(self) -> None:
        """Removes this cluster's nodes: it ends with this process."""
        retrying(
            self._engine,
            lambda s: catalog.publish_nodes(s, self._cluster, {}, forget_after_seconds=FORGET_SECONDS),
            attempts=2,
        )

    def _document(self, node: dict[str, Any]) -> dict[str, Any]:
        own = {"weights": self.weights, "unavailable_datasets": self.unavailable_datasets}
        return {**node, "dispatcher": self._owner, **(own if node["id"] == self._home_node else {})}


class Housekeeping:
    """What reads disks, in a thread of its own: publishes data sets and weights as they are, every minute."""

    def __init__(self, engine: Engine, settings: WorkerSettings, host: str, nodes: NodePublisher) -> None:
        self._engine = engine
        self._settings = settings
        self._host = host
        self._nodes = nodes
        self._known: list[PublishedDataset] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="housekeeping", daemon=True)

    def start(self) -> list[str]:
        """Does the first round here, and the others in the thread. Gives the names of the data sets.

        A large new data set waits for the second round, as reading it may take longer than a start.
        """
        self.round(most=FIRST_READING)
        self._thread.start()
        return [dataset.name for dataset in self._known or []]

    def stop(self) -> None:
        self._ended.set()

    def round(self, most: int | None = None) -> None:
        """Publishes what this machine has. Raises DatabaseUnavailable. most: bytes to be read of a new data set."""
        keep_logs_small(self._settings.log_folder)
        self._nodes.weights = readable_weights()
        ready, unavailable = published(most)
        entries = [PublishedDataset(e.name, e.fingerprint, e.model_dump(mode="json")) for e in ready]
        self._tell(unavailable)
        # unchanged ones too: another machine that had the same data set may have lost it, and removed the row
        unread = [one.name for one in unavailable if one.unread]  # they have grown: they are as they were until read
        retrying(self._engine, lambda s: catalog.publish_datasets(s, entries, published_by=self._host, keep=unread))
        if self._known not in (None, entries):
            log.info("datasets.changed", datasets=[entry.name for entry in entries])
        self._known = entries

    def _tell(self, unavailable: Sequence[UnavailableDataset]) -> None:
        documents = [one.model_dump(mode="json") for one in unavailable]
        if documents != self._nodes.unavailable_datasets:
            log.info("datasets.unavailable", datasets={one.name: one.reason for one in unavailable})
        self._nodes.unavailable_datasets = documents

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._ended.wait(pause):
            pause = REREAD_SECONDS
            try:
                self.round()
            except DatabaseUnavailable as error:
                log.warning("dispatcher.database_away", error=str(error))
            except Exception:  # a plug-in's data set may raise anything; what was published stays
                log.exception("housekeeping.failed")

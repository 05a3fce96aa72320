"""Prometheus metrics of one API process, and of the database as it is at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """A registry of its own, so that two applications in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "operation", "status")
        self.requests = Counter("attune_http_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "attune_http_request_seconds", "Time to the end of an answer.", ("method", "operation"),
            registry=self.registry,
        )  # fmt: skip
        self.streams = Gauge("attune_event_streams", "Event streams that are open.", registry=self.registry)
        self.searches = Gauge("attune_searches", "Searches by status.", ("status",), registry=self.registry)
        self.nodes = Gauge("attune_nodes", "Nodes heard of within the last minute.", registry=self.registry)
        self.database = Gauge("attune_database_up", "Whether the database answers.", registry=self.registry)

    def answered(self, method: str, operation: str, status: int, seconds: float) -> None:
        self.requests.labels(method, operation, str(status)).inc()
        self.seconds.labels(method, operation).observe(seconds)

    def database_is(self, up: bool, searches: Mapping[str, int], nodes: int) -> None:
        self.database.set(up)
        for status, count in searches.items():
            self.searches.labels(status).set(count)
        self.nodes.set(nodes)

    def text(self) -> bytes:
        return generate_latest(self.registry)

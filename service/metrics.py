"""Prometheus metrics of one API process, and a registry for those of the database."""

from __future__ import annotations

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

    def answered(self, method: str, operation: str, status: int, seconds: float) -> None:
        self.requests.labels(method, operation, str(status)).inc()
        self.seconds.labels(method, operation).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)

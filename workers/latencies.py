"""Latencies compare on one device only: a search keeps those of the device that its first trial was timed on.

That is a trial of its own: the device of an older result may be gone. So a search takes over a result with latencies
only when it has measured one itself, on the same device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from db.models import Trial
from search.metrics import METRICS
from workers.orders import Result
from workers.restoring import metrics_of

SPEEDS = tuple(metric.name for metric in METRICS.values() if metric.kind == "speed")


class Latencies:
    """What a search knows of speed. device: the one whose latencies count, None before the first. first: what the
    first trial has measured there, by metric, which scales the hypervolume."""

    def __init__(self) -> None:
        self.device: str | None = None
        self.first: dict[str, float] = {}

    def restore(self, rows: Iterable[Trial]) -> None:
        """Takes in the trials of earlier drivers of the search; all that have latencies were timed on one device."""
        timed = [row for row in rows if row.latency_ms is not None]
        if timed:
            oldest = min(timed, key=lambda row: (row.finished_at is None, row.finished_at, row.number))
            self._begin(speeds_of(metrics_of(oldest)), oldest.environment or {})

    def compares(self, result: Result) -> bool:
        """Whether a result that another search has measured says all that this one asks for."""
        return not speeds_of(result.metrics) or (
            self.device is not None and result.environment.get("device", "") == self.device
        )

    def comparable(self, result: Result) -> Result:
        """The result, without its latencies where they are of another device."""
        speeds = speeds_of(result.metrics)
        if not speeds:
            return result
        if self.device is None:
            self._begin(speeds, result.environment)
        if result.environment.get("device", "") == self.device:
            return result
        return replace(result, metrics={n: value for n, value in result.metrics.items() if n not in speeds})

    def note(self, result: Result) -> dict[str, Any]:
        """What the search is told of a trial whose latencies do not count."""
        device = result.environment.get("device", "an unknown device")
        message = f"Timed on {device}, this search on {self.device}: the latencies do not compare and are left out."
        return {"kind": "latency.other_device", "message": message}

    def _begin(self, speeds: dict[str, float], environment: Mapping[str, object]) -> None:
        self.device, self.first = str(environment.get("device", "")), speeds


def speeds_of(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The speed metrics among others."""
    return {name: float(value) for name in SPEEDS if (value := metrics.get(name)) is not None}

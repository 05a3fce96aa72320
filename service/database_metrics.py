"""Prometheus metrics of the whole installation, read from the database.

They are the same from every API process: take the maximum over processes, not the sum. One read serves all scrapes of a
few seconds, and a slow database is asked the less the slower it is, so that scrapes never add up to a load.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from db import catalog, statistics
from db.engine import reading
from db.errors import DatabaseUnavailable
from db.models import Node
from db.statistics import Statistics
from service.cluster.logic import ALIVE_SECONDS, slots

FRESH_SECONDS = 5.0
SHARE = 0.05
"""Of the time, at most, that is spent on reading."""
BOUNDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Upper bounds of the histogram of trials, seconds."""


@dataclass(frozen=True)
class Reading:
    """What the database said; None: it was away. until: when to ask again, by the monotonic clock."""

    found: Statistics | None
    nodes: tuple[Node, ...]
    until: float


class DatabaseMetrics(Collector):
    """Collects when Prometheus asks, from a reading that is a few seconds old at most while the database is quick."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: Reading | None = None
        self._rising = Rising()

    def collect(self) -> Iterator[Metric]:
        with self._lock:  # who comes while another one reads waits for that reading
            if self._latest is None or self._clock() >= self._latest.until:
                self._latest = self._read()
            reading = self._latest
            up = GaugeMetricFamily("attune_database_up", "Whether the database answers.", reading.found is not None)
            families = [up, *(_families(reading.found, reading.nodes, self._rising) if reading.found else ())]
        yield from families

    def _read(self) -> Reading:
        began = self._clock()
        try:
            with reading(self._engine) as session:
                found: Statistics | None = statistics.collect(session, BOUNDS)
                nodes = tuple(catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS))
        except DatabaseUnavailable:
            found, nodes = None, ()
        ended = self._clock()
        return Reading(found, nodes, ended + max(FRESH_SECONDS, (ended - began) / SHARE))


class Rising:
    """Totals that never fall while this process lives, as counters must not: deleted searches take their rows along."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, tuple[float, float]]] = {}

    def one(self, name: str, now: float) -> float:
        """The total of a counter without labels that is at `now` in the database."""
        return self.all(name, {"": now})[""]

    def all(self, name: str, now: Mapping[str, float]) -> dict[str, float]:
        """The totals of a counter by its label; labels that have gone stay."""
        seen = self._seen.setdefault(name, {})
        for label in seen.keys() | now.keys():
            before, total = seen.get(label, (0.0, 0.0))
            value = now.get(label, 0.0)
            seen[label] = value, total + max(0.0, value - before)
        return {label: total for label, (_, total) in sorted(seen.items())}


def _families(found: Statistics, nodes: tuple[Node, ...], rising: Rising) -> Iterator[Metric]:
    yield _gauges("attune_searches", "Searches by status.", "status", found.searches)
    waiting = found.searches["queued"]
    yield GaugeMetricFamily("attune_queue_length", "Searches that wait for a driver.", waiting)
    oldest = found.queued_seconds or 0.0
    yield GaugeMetricFamily("attune_queue_oldest_seconds", "Since the oldest waiting search was submitted.", oldest)
    yield _gauges("attune_trials", "Trials by status.", "status", found.trials)
    yield from _of_nodes(found, nodes)
    yield _durations(found, rising)
    seconds, number = found.overhead
    yield SummaryMetricFamily(
        "attune_trial_overhead_seconds", "Time in a slot beyond training and evaluation, of succeeded trials.",
        count_value=int(rising.one("overhead number", number)), sum_value=rising.one("overhead", seconds),
    )  # fmt: skip
    yield _counters("attune_trial_failures", "Trials that failed for good, by class.", "kind", found.failures, rising)
    yield _counters("attune_trial_retries", "Failures after which a trial was started again, by class.", "kind",
                    found.retries, rising)  # fmt: skip
    yield _counters("attune_lease_losses", "Drivers that died, and leases that ran out and were taken over.", "reason",
                    found.losses, rising)  # fmt: skip


def _of_nodes(found: Statistics, nodes: tuple[Node, ...]) -> Iterator[Metric]:
    labels = ("node", "host")
    yield GaugeMetricFamily("attune_nodes", "Nodes heard of within the last minute.", len(nodes))
    offered = GaugeMetricFamily("attune_slots", "Trials of one CPU that a living node runs at once.", labels=labels)
    taken = GaugeMetricFamily("attune_node_trials", "Trials that run on a living node.", labels=labels)
    for node in nodes:
        names = (node.id, str(node.document.get("host") or ""))
        offered.add_metric(names, slots(node.document))
        taken.add_metric(names, found.running.get(node.id, 0))
    yield offered
    yield taken
    running = sum(count for node, count in found.running.items() if node is not None)
    yield GaugeMetricFamily("attune_running_trials", "Trials that have a process, on any node.", running)


def _durations(found: Statistics, rising: Rising) -> Metric:
    bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
    # counted bound by bound, as sums over bounds would not stay in order when some fall
    counts = rising.all("durations", dict(zip(bounds, found.durations, strict=True)))
    buckets = list(zip(bounds, accumulate(counts[bound] for bound in bounds), strict=True))
    return HistogramMetricFamily(
        "attune_trial_seconds", "Training and evaluation of succeeded trials.", buckets=buckets,
        sum_value=rising.one("seconds", found.seconds),
    )  # fmt: skip


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _counters(name: str, text: str, label: str, values: Mapping[str, float], rising: Rising) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for key, total in rising.all(name, values).items():
        family.add_metric((key,), total)
    return family

"""Fronts from the rows of a search: any metrics, one database state."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from db import searches, trials, views
from db.models import Search
from db.trials import FrontPoint as Row
from search.errors import SpecError
from search.metrics import METRICS, Metric
from search.pareto import Bounds, Objective, front, minimised
from service.fronts.schemas import Axis, Bin, Confirmed, Dominated, DominatedSet, Front, FrontPoint

SEARCHED = ("controls", "explore")
MOST_POINTS = 2000
BINS = 48

MEASURED = {
    metric.name: metric
    for metric in (
        Metric("test_top1", "Test top-1 accuracy", "max", "", "quality"),
        Metric("latency_ms", "Latency at batch 1", "min", "ms", "cost"),
        Metric("seconds", "Time to train", "min", "s", "cost"),
    )
}
"""Metrics that trials have beside those that a search may be judged by."""


def axis(name: str, field: str) -> Axis:
    """SpecError listing what a front may be drawn on."""
    known = MEASURED | METRICS
    if name not in known:
        raise SpecError.one(field, "Unknown metric.", sorted(known))
    metric = known[name]
    return Axis(metric=metric.name, title=metric.title, goal=metric.goal, unit=metric.unit)


def default_metrics(search: Search) -> list[str]:
    """The search's own objectives."""
    return [objective["metric"] for objective in search.spec["objectives"]]


def bounds_of(search: Search) -> Bounds | None:
    """The scaling fixed when the search started; None before that."""
    return Bounds.from_json(search.bounds["objectives"]) if search.bounds else None


def make(session: Session, search_id: str, axes: Sequence[Axis] | None) -> Front:
    """The front on `axes` (None: the search's objectives). Raises NotFound."""
    search = searches.get(session, search_id)
    axes = axes or [axis(name, "objectives") for name in default_metrics(search)]
    metrics = [each.metric for each in axes]
    rows = trials.front_points(session, search_id, metrics, phases=SEARCHED)
    values = np.asarray([row.values for row in rows], dtype=np.float64).reshape(len(rows), len(metrics))
    keep = front(minimised(values, [Objective(each.metric, each.goal) for each in axes]))
    on_front = sorted((row for row, kept in zip(rows, keep, strict=True) if kept), key=_order(axes[0]))
    others = [row for row, kept in zip(rows, keep, strict=True) if not kept]
    baseline = next((row for row in rows if row.role == "baseline"), None)
    controls = [row for row in rows if row.role == "control"]
    told = _Teller(session, search_id, metrics, [*on_front, *controls, *([baseline] if baseline else [])])
    bounds = _sub_bounds(bounds_of(search), axes)
    return Front(
        search_id=search_id,
        axes=list(axes),
        points=[told.point(row) for row in on_front],
        baseline=None if baseline is None else told.point(baseline),
        controls=[told.point(row) for row in controls],
        hypervolume=None if bounds is None else bounds.hypervolume(values[keep]),
        reference_point=None if bounds is None else bounds.reference_point,
        dominated=_dominated(others, values[~keep], metrics),
        last_event=search.event_seq,
    )


def _order(first: Axis) -> Any:
    sign = 1 if first.goal == "max" else -1
    return lambda row: (sign * row.values[0], row.number)


def _sub_bounds(bounds: Bounds | None, axes: Sequence[Axis]) -> Bounds | None:
    """The search's bounds for these axes alone; None when it has none for one of them."""
    if bounds is None:
        return None
    names = [objective.metric for objective in bounds.objectives]
    if any(each.metric not in names for each in axes):
        return None
    places = [names.index(each.metric) for each in axes]
    return Bounds(
        tuple(bounds.objectives[i] for i in places),
        tuple(bounds.best[i] for i in places),
        tuple(bounds.worst[i] for i in places),
    )


def _dominated(rows: Sequence[Row], values: npt.NDArray[np.float64], metrics: Sequence[str]) -> DominatedSet:
    if len(rows) > MOST_POINTS:
        return DominatedSet(count=len(rows), points=[], bins=binned(values[:, 0], values[:, 1]))
    points = [
        Dominated(trial_id=row.trial_id, number=row.number, role=row.role, values=_named(metrics, row)) for row in rows
    ]
    return DominatedSet(count=len(rows), points=points, bins=[])


def binned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[Bin]:
    """A histogram of BINS × BINS cells over the range of the data; empty cells are left out."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=BINS)
    filled = np.argwhere(counts > 0)
    return [
        Bin(x=(x_edges[i], x_edges[i + 1]), y=(y_edges[j], y_edges[j + 1]), count=int(counts[i, j])) for i, j in filled
    ]


def _named(metrics: Sequence[str], row: Row) -> dict[str, float]:
    return dict(zip(metrics, row.values, strict=True))


class _Teller:
    """Rows as points, with what their architectures and confirmations are looked up for all of them at once."""

    def __init__(self, session: Session, search_id: str, metrics: Sequence[str], rows: Sequence[Row]) -> None:
        keys = list(dict.fromkeys(row.architecture_key for row in rows))
        self._metrics = metrics
        self._architectures = trials.architectures(session, keys)
        self._seeds: dict[str, set[int]] = defaultdict(set)
        self._confirmed: dict[str, list[float]] = defaultdict(list)
        for run in views.runs_of(session, search_id, keys):
            self._seeds[run.architecture_key].add(run.seed)
            if run.phase == "confirm" and run.test_top1 is not None:
                self._confirmed[run.architecture_key].append(run.test_top1)

    def point(self, row: Row) -> FrontPoint:
        architecture = self._architectures.get(row.architecture_key)
        return FrontPoint(
            trial_id=row.trial_id,
            number=row.number,
            role=row.role,
            phase=row.phase,
            status=row.status,
            label="" if architecture is None else architecture.label,
            key=row.architecture_key,
            seed=row.seed,
            seeds=sorted(self._seeds[row.architecture_key]),
            values=_named(self._metrics, row),
            architecture=None if architecture is None else architecture.document,
            confirmed=_summary(self._confirmed.get(row.architecture_key, [])),
        )


def _summary(values: Sequence[float]) -> Confirmed | None:
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Confirmed(metric="test_top1", seeds=len(values), mean=statistics.fmean(values), sd=sd)

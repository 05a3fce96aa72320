"""Fronts from the rows of a search: any metrics, one database state."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import searches, trials, views
from db.metrics import metric_of
from db.models import RESULT_STATUSES, Search, Trial
from search.errors import SpecError
from search.metrics import METRICS, Metric
from search.pareto import Bounds, Objective
from search.published import published
from search.resampling import t_quantile
from service.fronts.columns import Columns, columns
from service.fronts.pictures import Picture, draw, short
from service.fronts.schemas import Axis, Confirmed, DominatedSet, Front, FrontPoint, PublishedPoint, Step

PRINTED = {"params": ("params_m", 10**6), "macs": ("gmacs", 10**9)}

MEASURED = {
    metric.name: metric
    for metric in (
        Metric("test_top1", "Test top-1 accuracy", "max", "", "quality"),
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
    return Axis(metric=metric.name, title=metric.title, goal=metric.goal, unit=metric.unit, kind=metric.kind)


def default_metrics(search: Search) -> list[str]:
    """The search's own objectives."""
    return [objective["metric"] for objective in search.spec["objectives"]]


def objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """The metrics with their better directions."""
    return tuple(Objective(name, (MEASURED | METRICS)[name].goal) for name in names)


def bounds_of(search: Search) -> Bounds | None:
    """The scaling fixed when the search started; None before that."""
    return Bounds.from_json(search.bounds["objectives"]) if search.bounds else None


def make(session: Session, search_id: str, axes: Sequence[Axis] | None, *, architectures: bool = True) -> Front:
    """The front on `axes` (None: the search's objectives). Raises NotFound."""
    search = searches.get(session, search_id)
    axes = axes or [axis(name, "objectives") for name in default_metrics(search)]
    metrics = [each.metric for each in axes]
    names = _kept_order(metrics, default_metrics(search))
    found = columns(session, search, names)
    bounds = sub_bounds(bounds_of(search), names)
    picture = draw(found, objectives(names), bounds)
    keep = picture.keep
    on_front = sorted(_numbered(session, search_id, found.numbers[keep]), key=_order(axes[0]))
    controls = [trial for trial in views.control_trials(session, [search_id])[search_id] if _has(trial, metrics)]
    told = _Teller(session, search_id, metrics, [*on_front, *controls], architectures)
    return Front(
        search_id=search_id,
        axes=list(axes),
        points=[told.point(trial) for trial in on_front],
        baseline=next((told.point(trial) for trial in controls if trial.role == "baseline"), None),
        controls=[told.point(trial) for trial in controls if trial.role == "control"],
        published=list(_published(search, metrics)),
        hypervolume=picture.hypervolume,
        reference_point=None if bounds is None else bounds.reference_point,
        steps=_steps(session, search, picture),
        dominated=_dominated(found, picture, names, metrics),
        last_event=search.event_seq,
    )


def _kept_order(metrics: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The order in which two metrics are read and kept, however they are asked for: as in the search's objectives."""
    if len(metrics) != 2:
        return list(metrics)
    return list(usual) if set(usual) == set(metrics) else sorted(metrics)


def _numbered(session: Session, search_id: str, numbers: npt.NDArray[np.int64]) -> list[Trial]:
    found: list[Trial] = []
    for start in range(0, len(numbers), 500):
        part = numbers[start : start + 500].tolist()
        found += session.scalars(select(Trial).where(Trial.search_id == search_id, Trial.number.in_(part)))
    return found


def _has(trial: Trial, metrics: Sequence[str]) -> bool:
    return trial.status in RESULT_STATUSES and all(metric_of(trial, name) is not None for name in metrics)


def _order(first: Axis) -> Any:
    sign = 1 if first.goal == "max" else -1
    return lambda trial: (sign * metric_of(trial, first.metric), trial.number)


def sub_bounds(bounds: Bounds | None, metrics: Sequence[str]) -> Bounds | None:
    """The search's bounds for these metrics alone; None when it has none for one of them."""
    if bounds is None:
        return None
    names = [objective.metric for objective in bounds.objectives]
    if any(name not in names for name in metrics):
        return None
    places = [names.index(name) for name in metrics]
    return Bounds(
        tuple(bounds.objectives[i] for i in places),
        tuple(bounds.best[i] for i in places),
        tuple(bounds.worst[i] for i in places),
    )


def _dominated(found: Columns, picture: Picture, names: Sequence[str], metrics: Sequence[str]) -> DominatedSet:
    """names: the metrics in the columns' order; metrics: in that of the front's axes."""
    numbers, values = found.numbers[~picture.keep], found.values[~picture.keep]
    if picture.grid is not None:
        grid = picture.grid if list(metrics) == list(names) else picture.grid.turned()
        return DominatedSet(count=len(numbers), numbers=[], values={name: [] for name in metrics}, grid=grid)
    rounded = {name: [short(value) for value in values[:, names.index(name)].tolist()] for name in metrics}
    return DominatedSet(count=len(numbers), numbers=numbers.tolist(), values=rounded, grid=None)


def _steps(session: Session, search: Search, picture: Picture) -> list[Step]:
    """Seconds never go back, as trials do not always end in the order of their numbers."""
    numbers = np.asarray([number for number, _ in picture.raised], dtype=np.int64)
    ended = {trial.number: trial.finished_at for trial in _numbered(session, search.id, numbers)}
    told, last = [], 0.0
    for number, volume in picture.raised:
        at = ended[number]
        if search.started_at is not None and at is not None:
            last = max(last, (at - search.started_at).total_seconds())
        seconds = None if search.started_at is None or at is None else round(last, 1)
        told.append(Step(number=number, seconds=seconds, hypervolume=round(volume, 6)))
    return told


def _published(search: Search, metrics: Sequence[str]) -> Iterator[PublishedPoint]:
    """Rows that print every metric of the front, on a backbone built like the search's."""
    name = search.spec["backbone"]["name"]
    for row in published():
        if row.rebuild is None or row.rebuild["backbone"]["name"] != name:
            continue
        values: dict[str, float] = dict(row.metrics)
        for metric, (column, factor) in PRINTED.items():
            printed = getattr(row, column)
            values |= {} if printed is None else {metric: float(printed * factor)}
        if all(metric in values for metric in metrics):
            yield PublishedPoint(
                source=row.source,
                dataset=row.dataset,
                module=row.module,
                placement=row.placement,
                reduction=row.reduction,
                values={metric: values[metric] for metric in metrics},
            )


class _Teller:
    """Trials as points, with what their architectures and confirmations are looked up for all of them at once."""

    def __init__(
        self, session: Session, search_id: str, metrics: Sequence[str], found: Sequence[Trial], architectures: bool
    ) -> None:
        keys = list(dict.fromkeys(trial.architecture_key for trial in found))
        self._metrics = metrics
        self._architectures = trials.architectures(session, keys) if architectures else {}
        self._seeds: dict[str, set[int]] = defaultdict(set)
        self._confirmed: dict[str, list[float]] = defaultdict(list)
        for run in views.runs_of(session, search_id, keys):
            self._seeds[run.architecture_key].add(run.seed)
            if run.phase == "confirm" and run.test_top1 is not None:
                self._confirmed[run.architecture_key].append(run.test_top1)

    def point(self, trial: Trial) -> FrontPoint:
        architecture = self._architectures.get(trial.architecture_key)
        return FrontPoint(
            trial_id=trial.id,
            number=trial.number,
            role=trial.role,
            phase=trial.phase,
            status=trial.status,
            label=trial.label,
            key=trial.architecture_key,
            seed=trial.seed,
            seeds=sorted(self._seeds[trial.architecture_key]),
            params=trial.params,
            values={name: metric_of(trial, name) for name in self._metrics},
            architecture=None if architecture is None else architecture.document,
            confirmed=confirmed(self._confirmed.get(trial.architecture_key, [])),
        )


def confirmed(values: Sequence[float]) -> Confirmed | None:
    """Mean, spread and interval of an architecture's runs on the test split; None without one."""
    if not values:
        return None
    mean, sd, reach = statistics.fmean(values), None, None
    if len(values) > 1:
        sd = statistics.stdev(values)
        reach = t_quantile(0.975, len(values) - 1) * sd / math.sqrt(len(values))
    ends = (None, None) if reach is None else (mean - reach, mean + reach)
    return Confirmed(metric="test_top1", seeds=len(values), mean=mean, sd=sd, low=ends[0], high=ends[1])

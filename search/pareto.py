"""Fronts, ranks and hypervolume over objectives that are scaled by bounds fixed when a search starts.

The algorithms are moocore's; this module turns metrics into minimised numbers and says what the bounds are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt

from search.metrics import METRICS, Goal

Points = npt.NDArray[np.float64]
SPEED_MARGIN = 4.0
COST_MARGIN = 1.05
"""The worst cost counted in the hypervolume, as a multiple of the most expensive architecture of the space."""


@dataclass(frozen=True)
class Objective:
    metric: str
    goal: Goal


@dataclass(frozen=True)
class Bounds:
    """Best and worst value of each objective, in the metric's own unit and direction.

    They are fixed when a search starts, so that its hypervolume can be compared along the search and with other
    searches of the same space.
    """

    objectives: tuple[Objective, ...]
    best: tuple[float, ...]
    worst: tuple[float, ...]

    @classmethod
    def make(
        cls,
        objectives: Sequence[Objective],
        cost_ranges: Mapping[str, tuple[float, float]],
        classes: int,
        speeds: Mapping[str, float] | None = None,
    ) -> Bounds:
        """Accuracy from 1 to 0, loss from 0 to twice that of guessing (2 ln classes), cost from the cheapest to
        the most expensive architecture of the space times 1.05, speeds from 0 to four times the first measured.

        cost_ranges: least and greatest value of each cost metric over the space. speeds: the first that a trial of the
        search has measured; without them every speed counts as the best.
        """
        ends = []
        for objective in objectives:
            metric = METRICS[objective.metric]
            if metric.kind == "cost":
                least, greatest = cost_ranges[metric.name]
                low, high = least, greatest * COST_MARGIN
            elif metric.kind == "speed":
                low, high = 0.0, SPEED_MARGIN * (speeds or {}).get(metric.name, math.inf)
            elif metric.name == "loss":
                low, high = 0.0, 2 * math.log(max(classes, 2))
            else:
                low, high = 0.0, 1.0
            ends.append((low, high) if objective.goal == "min" else (high, low))
        return cls(tuple(objectives), tuple(best for best, _ in ends), tuple(worst for _, worst in ends))

    @property
    def known(self) -> bool:
        """Whether every objective has its scale: that of a speed is not known before something was timed."""
        return all(map(math.isfinite, (*self.best, *self.worst)))

    def scale(self, values: npt.ArrayLike) -> Points:
        """n × m values in the metrics' units → n × m, minimised, 0 at the best bound and 1 at the worst."""
        points = np.asarray(values, dtype=np.float64).reshape(-1, len(self.objectives))
        best, worst = np.asarray(self.best), np.asarray(self.worst)
        scaled: Points = (points - best) / (worst - best)
        return scaled

    def hypervolume(self, values: npt.ArrayLike) -> float:
        """Share of the bounded box that `values` (n × m, metrics' units) dominate: 0 to 1."""
        scaled = np.clip(self.scale(values), 0.0, None)
        inside = scaled[(scaled < 1.0).all(axis=1)]
        return float(moocore.hypervolume(inside, ref=np.ones(len(self.objectives)))) if len(inside) else 0.0

    @property
    def reference_point(self) -> dict[str, float]:
        return {o.metric: worst for o, worst in zip(self.objectives, self.worst, strict=True)}

    def to_json(self) -> list[dict[str, Any]]:
        rows = zip(self.objectives, self.best, self.worst, strict=True)
        return [{"metric": o.metric, "goal": o.goal, "best": best, "worst": worst} for o, best, worst in rows]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> Bounds:
        objectives = tuple(Objective(row["metric"], row["goal"]) for row in rows)
        return cls(objectives, tuple(float(row["best"]) for row in rows), tuple(float(row["worst"]) for row in rows))


def minimised(values: npt.ArrayLike, objectives: Sequence[Objective]) -> Points:
    """n × m values in the metrics' units, with the sign turned where more is better."""
    points = np.asarray(values, dtype=np.float64).reshape(-1, len(objectives))
    signs = np.asarray([1.0 if o.goal == "min" else -1.0 for o in objectives])
    turned: Points = points * signs
    return turned


def front(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which of n × m minimised points no other dominates; points with equal values stay together."""
    points = np.asarray(points, dtype=np.float64)
    if not len(points):
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(moocore.is_nondominated(points, keep_weakly=True), dtype=np.bool_)


def ranks(points: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Non-dominated rank of each of n × m minimised points, 0 for the front."""
    points = np.asarray(points, dtype=np.float64)
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(points), dtype=np.int64)


def crowding(points: Points) -> npt.NDArray[np.float64]:
    """Crowding distance of each of n × m points of one rank (Deb 2002, sec. III-B); infinite at the ends."""
    count, objectives = points.shape
    distance = np.zeros(count)
    for column in range(objectives):
        order = np.argsort(points[:, column], kind="stable")
        values = points[order, column]
        span = values[-1] - values[0]
        distance[order[0]] = distance[order[-1]] = np.inf
        if count > 2 and span > 0:
            distance[order[1:-1]] += (values[2:] - values[:-2]) / span
    return distance

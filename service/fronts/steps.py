"""How a front has grown: the trials that raised its hypervolume, found in one pass over very many."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search.pareto import Bounds, Points, front

CHUNK = 1_000
MOST_STEPS = 200


def raising(bounds: Bounds, numbers: Sequence[int], values: Points) -> list[tuple[int, float]]:
    """(trial number, hypervolume from then on), for each trial in order that no earlier one dominates.

    values: n × m in the bounds' objectives. Trials beyond the bounds' worst raise nothing and are left out.
    """
    scaled = np.clip(bounds.scale(values), 0.0, None)
    if scaled.shape[1] == 2:
        return _raising_staircase(numbers, scaled)
    found: list[tuple[int, float]] = []
    current, reached = np.zeros((0, scaled.shape[1])), 0.0
    for start in range(0, len(scaled), CHUNK):
        part = scaled[start : start + CHUNK]
        for row in np.flatnonzero(~_behind(part, current)).tolist():
            point = part[row : row + 1]
            if _behind(point, current)[0]:
                continue
            current = np.concatenate([current, point])
            current = current[front(current)]
            volume = _volume(bounds, current)
            if volume > reached:
                reached = volume
                found.append((numbers[start + row], volume))
    return found


def _raising_staircase(numbers: Sequence[int], scaled: Points) -> list[tuple[int, float]]:
    """The same for two objectives, where a new point only changes the stairs that it stands on."""
    found: list[tuple[int, float]] = []
    xs: list[float] = []
    ys: list[float] = []  # of the front, x rising and y falling, all within the box
    reached, start, size = 0.0, 0, CHUNK
    while start < len(scaled):
        part = scaled[start : start + size]
        inside = np.flatnonzero((part < 1.0).all(axis=1) & ~_behind(part, np.column_stack([xs, ys])))
        for row, (x, y) in zip(inside.tolist(), part[inside].tolist(), strict=True):
            place = bisect_right(xs, x)
            if place and ys[place - 1] <= y:
                continue
            first = bisect_left(xs, x)
            last, gained, left, top = first, 0.0, x, ys[first - 1] if first else 1.0
            while last < len(xs) and ys[last] >= y:
                gained += (xs[last] - left) * (top - y)
                left, top = xs[last], ys[last]
                last += 1
            gained += ((xs[last] if last < len(xs) else 1.0) - left) * (top - y)
            xs[first:last], ys[first:last] = [x], [y]
            if gained > 0:
                reached += gained
                found.append((numbers[start + row], reached))
        start += len(part)
        size *= 2
    return found


def thinned(steps: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MOST_STEPS of them, the first and the last included, close together where most is gained."""
    if len(steps) <= MOST_STEPS:
        return list(steps)
    volumes = np.asarray([volume for _, volume in steps])
    wanted = np.linspace(volumes[0], volumes[-1], MOST_STEPS // 2)
    places = {*np.searchsorted(volumes, wanted).tolist(), *np.linspace(0, len(steps) - 1, MOST_STEPS // 2).astype(int)}
    return [steps[int(place)] for place in sorted(places)]


def _behind(points: Points, current: Points) -> npt.NDArray[np.bool_]:
    """n: whether a point of the front is at least as good in everything."""
    if not len(current):
        return np.zeros(len(points), dtype=np.bool_)
    if points.shape[1] == 2:
        order = np.argsort(current[:, 0], kind="stable")
        place = np.searchsorted(current[order, 0], points[:, 0], side="right") - 1
        best = np.minimum.accumulate(current[order, 1])
        return (place >= 0) & (best[place] <= points[:, 1])
    better: npt.NDArray[np.bool_] = np.any(np.all(current[None, :, :] <= points[:, None, :], axis=2), axis=1)
    return better


def _volume(bounds: Bounds, scaled: Points) -> float:
    best, worst = np.asarray(bounds.best), np.asarray(bounds.worst)
    return bounds.hypervolume(best + scaled * (worst - best))

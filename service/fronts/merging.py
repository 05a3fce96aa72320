"""The fronts of several searches beside each other, and what none of them beats: one database state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import searches
from db.measured import timed_on
from db.models import Search, Trial
from search.errors import SpecError
from search.metrics import is_speed
from search.pareto import Bounds, front, minimised
from service.fronts import logic
from service.fronts.schemas import Axis, ComparedFront, Comparison, Front, MergedPoint

COMMON = ("top1", "macs")
"""What every search has, whatever it is judged by."""


def compare(
    session: Session, search_ids: Sequence[str], axes: Sequence[Axis] | None, *, architectures: bool = True
) -> Comparison:
    """The comparison on `axes`; None: the objectives, where all searches have the same, else `COMMON`.

    search_ids: different ones. Raises NotFound.
    """
    rows = [searches.get(session, search_id) for search_id in search_ids]
    axes = axes or _axes(rows)
    _check_devices(session, search_ids, axes)
    fronts = [logic.make(session, row.id, axes, architectures=architectures) for row in rows]
    names = [axis.metric for axis in axes]
    bounds = _shared_bounds([logic.sub_bounds(logic.bounds_of(row), names) for row in rows])
    merged = _merged(fronts, axes)
    return Comparison(
        axes=list(axes),
        searches=[_told(session, row, found, bounds) for row, found in zip(rows, fronts, strict=True)],
        merged=merged,
        hypervolume=_volume([each.point.values for each in merged], bounds),
        reference_point=None if bounds is None else bounds.reference_point,
        same_data=all(row.spec["dataset"] == rows[0].spec["dataset"] for row in rows),
    )


def _axes(rows: Sequence[Search]) -> list[Axis]:
    names = [logic.default_metrics(row) for row in rows]
    return [logic.axis(name, "x") for name in (names[0] if all(each == names[0] for each in names) else COMMON)]


def _check_devices(session: Session, search_ids: Sequence[str], axes: Sequence[Axis]) -> None:
    """SpecError for latencies of several devices: they do not compare."""
    timed = [name for name, each in zip("xyz", axes, strict=False) if is_speed(each.metric)]
    devices = {device for search_id in search_ids if (device := timed_on(session, search_id)) is not None}
    if timed and len(devices) > 1:
        names = ", ".join(sorted(devices))
        raise SpecError.one(timed[0], f"Timed on different devices, which do not compare: {names}.")


def _shared_bounds(each: Sequence[Bounds | None]) -> Bounds | None:
    """The smallest box that holds those of all searches, so that their hypervolumes compare; None where one has none.

    A search's own bounds depend on its space.
    """
    known = [bounds for bounds in each if bounds is not None]
    if not known or len(known) < len(each):
        return None
    box = np.asarray([[bounds.best, bounds.worst] for bounds in known])  # searches × ends × objectives
    larger_is_better = np.asarray([objective.goal == "max" for objective in known[0].objectives])
    best = np.where(larger_is_better, box[:, 0].max(axis=0), box[:, 0].min(axis=0))
    worst = np.where(larger_is_better, box[:, 1].min(axis=0), box[:, 1].max(axis=0))
    return Bounds(known[0].objectives, tuple(best.tolist()), tuple(worst.tolist()))


def _volume(values: Sequence[dict[str, float]], bounds: Bounds | None) -> float | None:
    if bounds is None:
        return None
    names = [objective.metric for objective in bounds.objectives]
    return bounds.hypervolume([[each[name] for name in names] for each in values])


def _told(session: Session, row: Search, found: Front, bounds: Bounds | None) -> ComparedFront:
    statement = select(func.count(), func.sum(Trial.busy_seconds), func.sum(Trial.seconds))
    count, busy, trained = session.execute(statement.where(Trial.search_id == row.id)).one()
    return ComparedFront(
        search_id=row.id,
        name=row.name,
        status=row.status,
        trials=count,
        trial_seconds=float(busy or trained or 0.0),
        hypervolume=_volume([point.values for point in found.points], bounds),
        points=found.points,
        baseline=found.baseline,
        last_event=found.last_event,
    )


def _merged(fronts: Sequence[Front], axes: Sequence[Axis]) -> list[MergedPoint]:
    """What no point of any front beats, in the order of a front; a result that several searches share comes once."""
    names = [axis.metric for axis in axes]
    points = [(each.search_id, point) for each in fronts for point in each.points]
    if not points:
        return []
    values = minimised([[point.values[name] for name in names] for _, point in points], logic.objectives(names))
    found: dict[tuple[object, ...], MergedPoint] = {}
    for place in np.flatnonzero(front(values)).tolist():
        search_id, point = points[place]
        key = (point.key, *(point.values[name] for name in names))
        if key in found:
            found[key].search_ids.append(search_id)
        else:
            found[key] = MergedPoint(search_ids=[search_id], point=point)
    sign = 1 if axes[0].goal == "max" else -1
    return sorted(found.values(), key=lambda each: sign * each.point.values[names[0]])

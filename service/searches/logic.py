"""Reads of searches for the API, one database state each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import engine, searches, trials, views
from db.models import Search
from search.pareto import Bounds
from service.fronts.logic import bounds_of
from service.searches.schemas import HypervolumeStep, Progress, SearchOut


def shown(session: Session, found: Sequence[Search]) -> list[SearchOut]:
    """The searches with their counts and best trials: three queries however many they are."""
    counts = searches.counts(session, [search.id for search in found])
    best = views.trials_by_id(session, [search.best_trial_id for search in found if search.best_trial_id])
    return [SearchOut.of(search, counts[search.id], best.get(search.best_trial_id or "")) for search in found]


def one(session: Session, search_id: str) -> SearchOut:
    """Raises NotFound."""
    return shown(session, [searches.get(session, search_id)])[0]


def progress(session: Session, search_id: str) -> Progress:
    """Raises NotFound."""
    search = searches.get(session, search_id)
    counts = searches.counts(session, [search_id])[search_id]
    planned, done = _planned(search.spec), sum(count for status, count in counts.items() if status != "running")
    return Progress(
        id=search.id,
        status=search.status,
        phase=search.phase,
        counts=shown(session, [search])[0].counts,
        planned=planned,
        done=done,
        hypervolume=search.hypervolume,
        hypervolume_steps=_steps(session, search),
        elapsed_seconds=_elapsed(search, engine.now(session)),
        seconds_left=_seconds_left(session, search, planned - done, counts.get("running", 0)),
        waiting_reason=search.waiting_reason,
        last_event=search.event_seq,
    )


def _planned(spec: dict[str, Any]) -> int:
    """Trials that the search may start, its baseline and controls not counted."""
    confirm = spec.get("confirm") or {}
    return int(spec["budget"]["trials"]) + int(confirm.get("top", 0)) * int(confirm.get("seeds", 0))


def _elapsed(search: Search, now: datetime) -> float | None:
    if search.started_at is None:
        return None
    return ((search.finished_at or now) - search.started_at).total_seconds()


def _seconds_left(session: Session, search: Search, left: int, running: int) -> float | None:
    """The trials left at the pace of those that were trained, as many at once as now."""
    if search.status != "running":
        return None
    each = views.mean_seconds(session, search.id)
    return None if each is None else max(0, left) * each / max(1, running)


def _steps(session: Session, search: Search) -> list[HypervolumeStep]:
    """The hypervolume after each trial that raised it."""
    bounds = bounds_of(search)
    if bounds is None:
        return []
    metrics = [objective.metric for objective in bounds.objectives]
    points = trials.front_points(session, search.id, metrics, phases=("controls", "explore"))
    return list(hypervolume_steps(bounds, [(point.number, point.values) for point in points]))


def hypervolume_steps(bounds: Bounds, points: Sequence[tuple[int, tuple[float, ...]]]) -> list[HypervolumeStep]:
    """points: (trial number, values in the bounds' objectives) in order.

    Only a point that no earlier one dominates is measured, so that 100,000 trials take about as long as their front.
    """
    steps: list[HypervolumeStep] = []
    front: list[tuple[float, ...]] = []
    scaled = bounds.scale([values for _, values in points]).tolist()
    for (number, _), point in zip(points, scaled, strict=True):
        mine = tuple(point)
        if any(all(a <= b for a, b in zip(other, mine, strict=True)) for other in front):
            continue
        front = [other for other in front if not all(a <= b for a, b in zip(mine, other, strict=True))] + [mine]
        steps.append(HypervolumeStep(number=number, hypervolume=_measured(bounds, front)))
    return steps


def _measured(bounds: Bounds, front: Sequence[tuple[float, ...]]) -> float:
    best, worst = bounds.best, bounds.worst
    values = [[b + x * (w - b) for b, w, x in zip(best, worst, point, strict=True)] for point in front]
    return bounds.hypervolume(values)

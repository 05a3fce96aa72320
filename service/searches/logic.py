"""Reads of searches for the API, one database state each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import engine, searches, views
from db.models import Search
from service.fronts.columns import columns
from service.fronts.logic import bounds_of
from service.fronts.pictures import draw
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
    shown_search = shown(session, [search])[0]
    counts = shown_search.counts
    planned, done = _planned(search.spec), counts["total"] - counts["running"]
    return Progress(
        id=search.id,
        status=search.status,
        phase=search.phase,
        counts=counts,
        planned=planned,
        done=done,
        hypervolume=search.hypervolume,
        hypervolume_steps=_steps(session, search),
        elapsed_seconds=_elapsed(search, engine.now(session)),
        seconds_left=shown_search.seconds_left,
        waiting_reason=search.waiting_reason,
        last_event=search.event_seq,
    )


def _planned(spec: dict[str, Any]) -> int:
    """Trials that the search may start, its baseline and controls not counted."""
    confirm = spec.get("confirm") or {}
    confirmed = int(confirm.get("top", 0)) + len(confirm.get("previous", ()))
    return int(spec["budget"]["trials"]) + confirmed * int(confirm.get("seeds", 0))


def _elapsed(search: Search, now: datetime) -> float | None:
    if search.started_at is None:
        return None
    return ((search.finished_at or now) - search.started_at).total_seconds()


def _steps(session: Session, search: Search) -> list[HypervolumeStep]:
    """The hypervolume after each trial that raised it."""
    bounds = bounds_of(search)
    if bounds is None:
        return []
    found = columns(session, search, [objective.metric for objective in bounds.objectives])
    raised = draw(found, bounds.objectives, bounds).raised
    return [HypervolumeStep(number=number, hypervolume=volume) for number, volume in raised]

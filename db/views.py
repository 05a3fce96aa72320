"""Reads that the service shows and no other part needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import PHASES, RESULT_STATUSES, Architecture, Evaluation, Trial


@dataclass(frozen=True)
class Pace:
    """How long trials took. seconds_per_epoch: the mean over `trials` trials."""

    seconds_per_epoch: float
    trials: int


def trials_by_id(session: Session, trial_ids: Sequence[str]) -> dict[str, Trial]:
    """The trials that are known of these, by id."""
    found: dict[str, Trial] = {}
    for start in range(0, len(trial_ids), 500):
        part = session.scalars(select(Trial).where(Trial.id.in_(trial_ids[start : start + 500])))
        found |= {trial.id: trial for trial in part}
    return found


def pace(session: Session, *, backbone: str, dataset_fingerprint: str, latest: int = 200) -> Pace | None:
    """How fast the latest trials of this backbone (by name) on this data were; None when there are none."""
    recent = (
        select((Trial.seconds / Trial.epochs).label("each"))
        .join(Evaluation, Evaluation.trial_id == Trial.id)
        .join(Architecture, Architecture.key == Trial.architecture_key)
        .where(Evaluation.dataset_fingerprint == dataset_fingerprint, Architecture.backbone == backbone)
        .where(Trial.status == "succeeded", Trial.seconds.is_not(None), Trial.epochs > 0)
        .order_by(Trial.id.desc())
        .limit(latest)
        .subquery()
    )
    mean, count = session.execute(select(func.avg(recent.c.each), func.count())).one()
    return None if mean is None else Pace(float(mean), count)


@dataclass(frozen=True)
class Run:
    """One finished training of an architecture."""

    architecture_key: str
    phase: str
    seed: int
    test_top1: float | None


def runs_of(session: Session, search_id: str, architecture_keys: Sequence[str]) -> list[Run]:
    """Every finished or reused trial of these architectures in a search."""
    found: list[Run] = []
    for start in range(0, len(architecture_keys), 500):
        keys = architecture_keys[start : start + 500]
        statement = select(Trial.architecture_key, Trial.phase, Trial.seed, Trial.test_top1, Trial.status)
        # phases named and statuses not, so that SQLite takes the index of (search, phase, architecture, seed)
        statement = statement.where(Trial.search_id == search_id, Trial.phase.in_(PHASES))
        rows = session.execute(statement.where(Trial.architecture_key.in_(keys)))
        found += [Run(*row[:4]) for row in rows if row.status in RESULT_STATUSES]
    return found


def control_trials(session: Session, search_ids: Sequence[str]) -> dict[str, list[Trial]]:
    """The baseline and the published placements of each search, in the order of their numbers."""
    found: dict[str, list[Trial]] = {search_id: [] for search_id in search_ids}
    for start in range(0, len(search_ids), 500):
        statement = select(Trial).where(Trial.search_id.in_(search_ids[start : start + 500]), Trial.phase == "controls")
        # sorted here, as SQLite would take the index of the numbers and read every trial of a search
        for trial in sorted(session.scalars(statement), key=lambda trial: trial.number):
            found[trial.search_id].append(trial)
    return found
